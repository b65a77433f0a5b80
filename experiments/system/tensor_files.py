"""Named arrays from the files that people keep weights in: .npz and .safetensors.

Neither reader runs code from the file. The format of .safetensors is: 8 bytes with the length n of
the header (little-endian), n bytes of JSON {name: {"dtype", "shape", "data_offsets"}}, the data.
"""

from __future__ import annotations

import json
import math
import pathlib
import zipfile
from collections.abc import Mapping
from typing import NoReturn

import ml_dtypes
import numpy as np

from experiments.system.errors import UserError

_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_MOST_HEADER_BYTES = 100_000_000


def read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz or .safetensors file, in the order of the file.

    Args:
      path: its ending says which of the two it is.

    Returns:
      {name: array}; those of .safetensors are read from the disk when they are used.

    Raises:
      UserError: the file is not there, has another ending or is damaged.
    """
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise UserError(f"{path}: got {path.suffix or 'no ending'}; accepted: {', '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: is no {path.suffix} file or is damaged ({error})") from error


def weights(
    tensors: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], source: str = ""
) -> np.ndarray:
    """One of the arrays as weights: finite float32 numbers of a known shape.

    Args:
      tensors: of `read_tensors`.
      name: of the array. Where it ends in "running_var", its numbers are not negative either.
      shape: what it should have.
      source: the file, for the error.

    Raises:
      UserError: there is no such array, or it has another shape, another kind of numbers, NaN or
        infinity.

    Example:
      >>> weights({"bias": np.array([0.5, 1.0])}, "bias", (2,))
      array([0.5, 1. ], dtype=float32)
    """

    def refuse(got: str, accepted: str) -> NoReturn:
        file = f"{source}: " if source else ""
        raise UserError(f"{file}{name}: got {got}; accepted: {accepted}")

    if name not in tensors:
        refuse("no such tensor", f"shape {shape}")
    found = tensors[name]
    if found.shape != shape:
        refuse(f"shape {found.shape}", f"shape {shape}")
    if not (np.issubdtype(found.dtype, np.floating) or found.dtype == ml_dtypes.bfloat16):
        refuse(f"dtype {found.dtype}", "floating-point numbers")
    with np.errstate(over="ignore"):
        found = np.asarray(found, np.float32)
    if not np.isfinite(found).all():
        refuse("NaN or infinity", "finite float32 numbers")
    if name.endswith("running_var") and found.min(initial=0) < 0:
        refuse("a negative variance", "numbers >= 0")
    return found


def _read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    # np.load leaves a file open that it opened itself and cannot read.
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    data = np.memmap(path, mode="r", offset=start) if size > start else np.zeros(0, np.uint8)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] not in _DTYPES:
            raise ValueError(f"{name} has dtype {entry['dtype']}; accepted: {', '.join(_DTYPES)}")
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
        first, end = entry["data_offsets"]
        if not 0 <= first <= end <= len(data) or end - first != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} of shape {shape} does not fit bytes {first} to {end}")
        tensors[name] = data[first:end].view(dtype).reshape(shape)
    return tensors
