"""Building a dataset on the disk so that its folder is either complete or absent.

A dataset is built in a staging folder under the data directory, checksummed, and moved to its place
by one rename. A process that is killed leaves the staging folder and its lock file, which the next
one takes over, and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

import filelock

from experiments.data import store
from experiments.system.errors import ConfigError, is_disk_full
from experiments.system.files import write_json

_REFUSED = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EEXIST, errno.ENOTDIR, errno.ENOENT),
    *(errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL),
)


@contextlib.contextmanager
def staging(data_dir: str, name: str, *, resume: bool = False) -> Iterator[pathlib.Path]:
    """Makes a folder under data_dir to build a dataset in, which this process alone may use.

    Args:
      data_dir: the folder that holds all datasets; it is made if it is missing.
      name: of the dataset.
      resume: keeps what an interrupted process left in the folder, and keeps the folder when this
        process is interrupted. By default the folder begins empty and is always removed.

    Yields:
      The path of the staging folder.

    Raises:
      ConfigError: data_dir cannot be written, the disk is full, or another process prepares the
        same dataset.
    """
    root = store.root(data_dir)
    folder = root / f".{name}.incomplete"
    with _explained(data_dir, root):
        root.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(root / f".{name}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout as error:
            raise ConfigError(
                "data_dir",
                f"{data_dir}, where another process is preparing {name} (it holds "
                f"{lock.lock_file})",
                "a folder that no other process prepares this dataset under; or wait for its end",
            ) from error
    keep = resume
    try:
        with _explained(data_dir, root):
            folder.mkdir(exist_ok=True)
            if not resume:
                _empty(folder)
            yield folder
            keep = False
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        # The file goes before the lock is released: another process that has opened it by then
        # finds that it was removed, and tries again. Windows removes no open file, hence twice.
        for release in (lock.release, lambda: None):
            with contextlib.suppress(OSError):
                os.unlink(lock.lock_file)
            release()


def require_space(folder: pathlib.Path, size: int) -> None:
    """Raises an OSError (no space left) unless `size` bytes are free, before any work is done."""
    if shutil.disk_usage(folder).free < size:
        message = f"about {size / 1e6:.0f} MB are needed"
        raise OSError(errno.ENOSPC, message, os.fspath(folder))


def publish(built: pathlib.Path, place: pathlib.Path) -> None:
    """Writes the checksums of a folder that is complete and moves it to its place.

    Args:
      built: the folder, inside a staging folder.
      place: where it goes; a damaged folder that is there is replaced.
    """
    checksums = {
        path.relative_to(built).as_posix(): {
            "size": path.stat().st_size,
            "sha256": store.sha256(path),
        }
        for path in sorted(built.rglob("*"))
        if path.is_file() and path.name != store.CHECKSUMS
    }
    write_json(built / store.CHECKSUMS, checksums)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() or place.is_symlink():
        os.replace(place, built.with_name(built.name + ".replaced"))
    os.replace(built, place)


def _empty(folder: pathlib.Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@contextlib.contextmanager
def _explained(data_dir: str, root: pathlib.Path) -> Iterator[None]:
    """Turns errors of the file system under data_dir into one error that names the setting."""
    try:
        yield
    except Exception as error:
        if is_disk_full(error):
            raise ConfigError(
                "data_dir",
                f"{data_dir}, where no space is left, or a file would be larger than its limit "
                f"({_first_line(error)})",
                "a folder with enough space; the dataset is not prepared, run the same command "
                "again",
            ) from error
        refused = isinstance(error, OSError) and error.errno in _REFUSED
        at = os.fspath(error.filename or "") if refused else ""
        if at and (at.startswith(os.fspath(root)) or os.fspath(root).startswith(at)):
            raise ConfigError(
                "data_dir",
                f"{data_dir}, which cannot be written ({_first_line(error)})",
                "a folder that this user can write",
            ) from error
        raise


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
