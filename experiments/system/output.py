"""Lines for the user that never end a long computation."""

from __future__ import annotations

import os
import sys
from typing import TextIO


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
