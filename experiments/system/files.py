"""Files that are written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import pathlib
import tempfile
from typing import Any

_UNFINISHED = ".unfinished"


def write_text(path: pathlib.Path, text: str) -> None:
    """`write_bytes` of a text in UTF-8; "?" for the letters of a file name that is no text."""
    write_bytes(path, text.encode("utf-8", errors="replace"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
    """Writes a file whole or not at all, with the permissions of any new file.

    Makes the folder of the file. The bytes are on the disk when this returns.

    Raises:
      OSError: the file cannot be written; a file of that name is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(
        dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED
    )
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_MASK)  # mkstemp lets the owner alone read the file
        os.replace(temporary, path)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: pathlib.Path, value: Any) -> None:
    """Writes a JSON file whole or not at all; NaN and infinity become null."""
    write_text(path, json.dumps(finite(value), indent=2, allow_nan=False) + "\n")


def remove_unfinished(folder: pathlib.Path) -> None:
    """Removes the temporary files that a killed `write_bytes` left in a folder."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


def finite(value: Any) -> Any:
    """The value with the numbers that JSON does not have (NaN, infinity) replaced by None.

    Example:
      >>> finite({"loss": float("nan"), "steps": (1, 2)})
      {'loss': None, 'steps': [1, 2]}
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _umask() -> int:
    # Only a write tells the mask, so it is set and put back.
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


_MASK = _umask()  # Read once, before there are threads: it belongs to the whole process.
