"""Ctrl-C that is never lost: a library that swallows KeyboardInterrupt delays it only.

Python delivers Ctrl-C to the main thread. Threads that work for it ask `raise_if_pending` now and
then, and end when the main thread called `stop_threads`.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_pending = False
_stopping = threading.Event()


class Stopped(BaseException):
    """This thread was asked to end."""


def install() -> None:
    """Makes SIGINT raise KeyboardInterrupt and be remembered; for the main thread of a command."""

    def remember(*_):
        global _pending
        _pending = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """A block in which threads work; they are asked to end when an exception leaves it."""
    _stopping.clear()
    try:
        yield
    except BaseException:
        _stopping.set()
        raise


def raise_if_pending() -> None:
    """Raises what asks this thread to end, if anything does.

    Raises:
      KeyboardInterrupt: one was raised in the main thread before, and swallowed on its way.
      Stopped: this is another thread, and the main thread left `threads` by an exception.
    """
    global _pending
    if threading.current_thread() is not threading.main_thread():
        if _stopping.is_set():
            raise Stopped
    elif _pending:
        _pending = False
        raise KeyboardInterrupt
