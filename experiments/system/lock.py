"""One process at a time in a folder."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

import filelock


class Held(Exception):
    """Another process holds the folder; the message says which."""


@contextlib.contextmanager
def hold(folder: pathlib.Path, name: str = ".lock") -> Iterator[None]:
    """Holds an existing folder for this process alone, until the block or the process ends.

    Args:
      folder: it must exist; a file `name` in it is locked, and `name`.holder says by whom.
      name: of the lock.

    Raises:
      Held: another process (or another block of this one) holds it.
      OSError: the folder cannot be written to.
    """
    lock = filelock.FileLock(folder / name, timeout=0)
    holder = folder / f"{name}.holder"
    try:
        lock.acquire()
    except filelock.Timeout:
        try:
            who = holder.read_text("utf-8", errors="replace").strip()
        except OSError:
            who = ""
        raise Held(who or "another process") from None
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()
