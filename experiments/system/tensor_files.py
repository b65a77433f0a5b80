"""Named arrays from the files that people keep weights in: .npz and .safetensors.

Neither reader runs code from the file. The format of .safetensors is: 8 bytes with the length n of
the header (little-endian), n bytes of JSON {name: {"dtype", "shape", "data_offsets"}}, the data.
"""

from __future__ import annotations

import json
import math
import os
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import NoReturn

import ml_dtypes
import numpy as np

from experiments.system.errors import UserError

# Types of less than a byte (F4, F6_E2M3, F6_E3M2) are packed, and left out.
_DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu, "C64": np.complex64,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
_MOST_HEADER_BYTES = 100_000_000
_DAMAGED = (
    *(ValueError, KeyError, TypeError, AttributeError, EOFError, RecursionError),
    *(NotImplementedError, zipfile.BadZipFile, zlib.error),
)


class Tensors(dict[str, np.ndarray]):
    """The arrays of a file by name.

    Attributes:
      skipped: {name: reason} of what is in the file too but cannot be read.
    """

    def __init__(self):
        super().__init__()
        self.skipped: dict[str, str] = {}


def read_tensors(path: str | os.PathLike[str]) -> Tensors:
    """The arrays of a .npz or .safetensors file, in the order of the file.

    NumPy writes bfloat16 as two bytes without a type (V2); as no other type of `ml_dtypes` has two
    bytes, they are read as bfloat16. Arrays of objects and of types that NumPy does not know are
    skipped.

    Args:
      path: its ending says which of the two it is.

    Returns:
      {name: array}, and what was skipped; arrays of .safetensors are read from the disk when they
      are used.

    Raises:
      UserError: the file is not there, has another ending or is damaged.
    """
    path = pathlib.Path(path)
    readers = {".npz": _read_npz, ".safetensors": _read_safetensors}
    if path.suffix not in readers:
        raise UserError(f"{path}: got {path.suffix or 'no ending'}; accepted: {', '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DAMAGED as error:
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
        skipped = tensors.skipped if isinstance(tensors, Tensors) else {}
        refuse(skipped.get(name, "no such tensor"), f"shape {shape}")
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


def _read_npz(path: pathlib.Path) -> Tensors:
    tensors = Tensors()
    # np.load leaves a file open that it opened itself and cannot read.
    with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
        for name in file.files:
            try:
                array = file[name]
            except ValueError as error:
                if "allow_pickle" in str(error):
                    tensors.skipped[name] = "objects, which only a pickle could restore"
                elif "descr" in str(error):
                    tensors.skipped[name] = f"a dtype that NumPy does not know ({error})"
                else:
                    raise
                continue
            if not isinstance(array, np.ndarray):  # NumPy returns the bytes of other members.
                tensors.skipped[name] = "no array"
            elif array.dtype.kind != "V" or array.dtype.names:
                tensors[name] = array
            elif array.dtype.itemsize == 2:
                tensors[name] = array.view(ml_dtypes.bfloat16)
            else:
                tensors.skipped[name] = f"dtype {array.dtype.str[1:]}, which says no kind of number"
    return tensors


def _read_safetensors(path: pathlib.Path) -> Tensors:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, _MOST_HEADER_BYTES):
            raise ValueError("its header is longer than the file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    data = np.memmap(path, mode="r", offset=start) if size > start else np.zeros(0, np.uint8)
    tensors = Tensors()
    for name, entry in header.items():
        kind, shape, (first, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if not isinstance(kind, str):
            raise ValueError(f"{name} has the dtype {kind}")
        fits = 0 <= first <= end <= len(data)
        if kind in _DTYPES:
            dtype = np.dtype(_DTYPES[kind])
            fits = fits and end - first == math.prod(shape) * dtype.itemsize
        if not fits:
            raise ValueError(f"{name} of shape {shape} does not fit bytes {first} to {end}")
        if kind in _DTYPES:
            tensors[name] = data[first:end].view(dtype).reshape(shape)
        else:
            tensors.skipped[name] = f"dtype {kind}"
    return tensors
