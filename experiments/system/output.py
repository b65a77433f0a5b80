"""Lines for the user that never end a long computation."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def accept_any_text() -> None:
    """Lets every line out on stdout and stderr, whatever the console: call it first.

    What its encoding lacks (as cp1252 on Windows for `> log.txt`) becomes "?" on stdout and, so
    that errors name a file exactly, an escape on stderr. A closed one is opened to nowhere.
    """
    for name, errors in (("stdout", "replace"), ("stderr", "backslashreplace")):
        stream = getattr(sys, name)
        if stream is None:  # as by `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors=errors))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line at once; where nobody reads the output any more, goes on without it.

    `python -m ... | head -1` closes the pipe after a line; the training behind it continues.
    """
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except BrokenPipeError:
        # Later prints, and Python's own flush at exit, must find an open file.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
