"""Folders on the disk that are complete or absent, and that are noticed when damaged.

A dataset is built in a staging folder under the data directory, checksummed, and moved to its
place by one rename. A process that is killed leaves a staging folder and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator

CHECKSUMS = "checksums.json"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT)


@contextlib.contextmanager
def staging(data_dir: str, name: str, *, resume: bool = False) -> Iterator[pathlib.Path]:
    """A folder under data_dir to build a dataset in, held by this process alone.

    Args:
      data_dir: the folder that holds all datasets; it is made if it is missing.
      name: of the dataset.
      resume: hands over what an interrupted process left in the folder, and leaves the folder
        where this one is interrupted. Otherwise the folder starts empty and is always removed.

    Yields:
      The path of the staging folder.

    Raises:
      ValueError: data_dir cannot be written, the disk is full, or another process is at work;
        names the flag --data_dir.
    """
    root = pathlib.Path(data_dir).expanduser()
    folder = root / f".{name}.incomplete"
    with _explained(data_dir, folder):
        root.mkdir(parents=True, exist_ok=True)
        lock = _hold(folder)
    if lock is None:
        raise ValueError(
            f"--data_dir: another process is preparing {name} under {data_dir} (it holds {folder});"
            " wait for it to end, or give another folder"
        )
    finished = False
    try:
        with _explained(data_dir, folder):
            if not resume:
                _empty(folder)
            yield folder
        finished = True
    finally:
        if finished or not resume:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def require_space(folder: pathlib.Path, size: int) -> None:
    """Raises an OSError (no space left) unless `size` bytes are free, before any work is done."""
    if shutil.disk_usage(folder).free < size:
        message = f"about {size / 1e6:.0f} MB are needed"
        raise OSError(errno.ENOSPC, message, os.fspath(folder))


def publish(built: pathlib.Path, place: pathlib.Path) -> None:
    """Checksums the files of a folder that is complete and moves it to its place.

    Args:
      built: the folder, inside a staging folder.
      place: where it goes; a folder that is there, found damaged before, is replaced.
    """
    digests = {
        os.fspath(path.relative_to(built)): {"size": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(built.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    }
    (built / CHECKSUMS).write_text(json.dumps(digests, indent=1) + "\n")
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        os.replace(place, built.with_name(built.name + ".replaced"))
    os.replace(built, place)


def damage(folder: pathlib.Path, *, contents: bool = True) -> str | None:
    """What is wrong with a published folder, in words, or None where it is as it was written.

    Args:
      folder: the folder.
      contents: compares the checksum of every file; otherwise only their sizes, at once.
    """
    try:
        digests = json.loads((folder / CHECKSUMS).read_text())
    except FileNotFoundError:
        return f"{CHECKSUMS} is missing"
    except (OSError, ValueError):
        return f"{CHECKSUMS} is unreadable"
    for name, expected in digests.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{name} has {size} bytes instead of {expected['size']}"
        if contents and sha256(path) != expected["sha256"]:
            return f"{name} is not what was written (its SHA-256 differs)"
    return None


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hold(folder: pathlib.Path) -> int | None:
    """Makes and locks the folder; the lock's descriptor, or None where another process has it."""
    while True:
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        # Its last holder may have removed the folder between the opening and the locking.
        if folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat()):
            return descriptor
        os.close(descriptor)


def _empty(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def _explained(data_dir: str, folder: pathlib.Path) -> Iterator[None]:
    """Turns what the file system refuses under data_dir into one error that names the flag."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise ValueError(
                f"--data_dir: no space left under {data_dir} ({error}); the dataset is not "
                "prepared; make room or give another folder, then run the same command again"
            ) from error
        at = os.fspath(error.filename or "")
        inside = at.startswith(os.fspath(folder.parent)) or os.fspath(folder).startswith(at)
        if error.errno in _REFUSED and at and inside:
            raise ValueError(
                f"--data_dir: got {data_dir}, which cannot be written ({error}); accepted is a "
                "folder that this user can write"
            ) from error
        raise
