"""Prepared folders: whether one is as it was written, and what identifies its contents.

Every prepared folder holds checksums.json: {file: {"size": bytes, "sha256": hexadecimal digits}}.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import pathlib
from typing import Any

from experiments.system.errors import ConfigError

CHECKSUMS = "checksums.json"


def root(data_dir: str) -> pathlib.Path:
    """The absolute path of --data_dir; `~` is the home folder.

    Raises:
      ConfigError: it is empty, or it names a user who has no home folder.
    """
    return expanded("data_dir", data_dir)


def expanded(field: str, path: str | os.PathLike) -> pathlib.Path:
    """An absolute path; `~` is the home folder.

    Args:
      field: the setting that holds the path, for the error.
      path: the path.

    Raises:
      ConfigError: it is empty or too long, or it names a user who has no home folder.

    Example:
      >>> expanded("lists", "/data/lists").as_posix()
      '/data/lists'
    """
    path = os.fspath(path)
    if not path:
        raise ConfigError(field, "an empty text", "a path")
    if "\0" in path:
        raise ConfigError(field, repr(path), "a path")
    try:
        found = pathlib.Path(path).expanduser().absolute()
        found.exists()
    except RuntimeError as error:
        raise ConfigError(field, path, "a path below an existing home folder") from error
    except OSError as error:  # too long, or in a folder that this user cannot look into
        raise ConfigError(
            field, f"{path} ({error.strerror})", "a path that can be looked at"
        ) from error
    return found


def damage(folder: pathlib.Path, *, contents_up_to: int | None = None) -> str | None:
    """What is wrong with a prepared folder, in words, or None where it is as it was written.

    Args:
      folder: the folder.
      contents_up_to: compares the SHA-256 of files up to this many bytes, and only the sizes of
        larger ones; by default the SHA-256 of every file.
    """
    try:
        checksums = _checksums(folder)
    except ValueError as error:
        return str(error)
    for name, expected in checksums.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        size = path.stat().st_size
        if size != expected["size"]:
            return f"{name} has {size} bytes instead of {expected['size']}"
        if contents_up_to is not None and size > contents_up_to:
            continue
        try:
            digest = sha256(path)
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"
        if digest != expected["sha256"]:
            return f"{name} is not what was written (its SHA-256 differs)"
    return None


def digest(folder: pathlib.Path, patterns: tuple[str, ...]) -> str | None:
    """SHA-256 of the entries in checksums.json whose file names fit one of the patterns.

    It identifies the contents of these files without reading them.

    Args:
      folder: a prepared folder.
      patterns: as in a shell, such as "*-train.*".

    Returns:
      The SHA-256 in hexadecimal digits; None where the folder has no checksums for such files.
    """
    try:
        checksums = _checksums(folder)
    except ValueError:
        return None
    chosen = {
        name: entry["sha256"]
        for name, entry in sorted(checksums.items())
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    return hashlib.sha256(json.dumps(chosen).encode()).hexdigest() if chosen else None


def sha256(path: pathlib.Path) -> str:
    """The SHA-256 of a file in hexadecimal digits, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksums(folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """The contents of checksums.json; ValueError says what is wrong with it."""
    try:
        checksums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{CHECKSUMS} is missing") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{CHECKSUMS} is unreadable") from error
    except RecursionError as error:
        raise ValueError(f"{CHECKSUMS} is unreadable") from error
    good = isinstance(checksums, dict) and all(
        isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        for entry in checksums.values()
    )
    if not good or not checksums:
        raise ValueError(f"{CHECKSUMS} does not hold the size and SHA-256 of any file")
    return checksums
