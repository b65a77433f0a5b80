"""Ctrl-C that is never lost: a library that swallows KeyboardInterrupt delays it only."""

from __future__ import annotations

import signal

_pending = False


def install() -> None:
    """Makes SIGINT raise KeyboardInterrupt and be remembered; for the main thread of a command."""

    def remember(*_):
        global _pending
        _pending = True
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)


def raise_if_pending() -> None:
    """Raises KeyboardInterrupt if one was raised before and swallowed on its way."""
    global _pending
    if _pending:
        _pending = False
        raise KeyboardInterrupt
