"""The tensors of a PyTorch file (.pth, .pt), read without PyTorch and without running code from it.

torch.save writes a pickle, and a pickle may call any function. The reader here knows the few names
that a dict of tensors is made of, and refuses a file that asks for another one. There are two
formats: since PyTorch 1.6 a zip archive (`*/data.pkl`, and the bytes of storage K in `*/data/K`),
before that five pickles in a row and then the storages.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pathlib
import pickle
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from experiments.system.errors import UserError

_DTYPES = {
    "FloatStorage": np.float32, "DoubleStorage": np.float64, "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16, "LongStorage": np.int64, "IntStorage": np.int32,
    "ShortStorage": np.int16, "CharStorage": np.int8, "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}  # fmt: skip
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_VERSION = 1001


class _Refused(Exception):
    """The file asks for something that a dict of tensors does not need."""


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype
    count: int


class _Tensor(NamedTuple):
    """A view of a storage whose bytes may not have been read yet."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Parameter(NamedTuple):
    tensor: _Tensor


def read_tensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a state dict that torch.save wrote, in the order of the file.

    Args:
      path: of the file.

    Returns:
      {name: array}.

    Raises:
      UserError: the file cannot be read, is damaged, holds no dict of tensors, or asks for code.
    """
    path = pathlib.Path(path)
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                found, load = _read_zip(file)
            else:
                found, load = _read_legacy(file)
            return _arrays(found, load)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _Refused as error:
        raise UserError(
            f"{path}: its pickle asks for {error}; accepted: a dict of tensors and nothing else"
        ) from error
    except Exception as error:  # A damaged pickle makes the reader raise nearly every type.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: is no file of torch.save or is damaged ({reason})") from error


def _read_zip(file: Any) -> tuple[Any, Callable[[_Storage], bytes]]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError(f"it has {len(pickles)} members named data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            order = archive.read(f"{folder}byteorder").strip()
            if order != b"little":
                raise ValueError(f"its byte order is {order!r}")
        found = _Unpickler(io.BytesIO(archive.read(pickles[0]))).load()
        content = {
            name.removeprefix(f"{folder}data/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith(f"{folder}data/")
        }
    return found, lambda storage: content[storage.key]


def _read_legacy(file: Any) -> tuple[Any, Callable[[_Storage], bytes]]:
    file.seek(0)
    if _Unpickler(file).load() != _LEGACY_MAGIC:
        raise ValueError("it does not begin as one")
    if (version := _Unpickler(file).load()) != _LEGACY_VERSION:
        raise ValueError(f"its version is {version}")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("its byte order is big")
    unpickler = _Unpickler(file)
    found = unpickler.load()
    content = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        storage = unpickler.storages[key]
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} elements in place of {storage.count}")
        content[key] = file.read(count * storage.dtype.itemsize)
    return found, lambda storage: content[storage.key]


class _Unpickler(pickle.Unpickler):
    """Builds dicts, tuples, numbers, strings and tensors; refuses every other name."""

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) in (
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_tensor"),
        ):
            return _rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _rebuild_parameter
        if module == "torch" and name in _DTYPES:
            return np.dtype(_DTYPES[name])
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid[:5]
        if kind != "storage" or not isinstance(dtype, np.dtype) or pid[5:] not in ((), (None,)):
            raise ValueError("a storage is not described as usual")
        return self.storages.setdefault(key, _Storage(key, dtype, count))


def _rebuild_tensor(storage, offset, shape, stride, *_unused) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise ValueError("a tensor has no storage")
    return _Tensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


def _rebuild_parameter(tensor, *_unused) -> _Parameter:
    return _Parameter(tensor)


def _arrays(found: Any, load: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    if not isinstance(found, dict):
        raise ValueError(f"it holds no dict but {type(found).__name__}")
    arrays = {}
    for name, value in found.items():
        tensor = value.tensor if isinstance(value, _Parameter) else value
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is no tensor but {type(tensor).__name__}")
        arrays[name] = _array(name, tensor, load)
    return arrays


def _array(name: str, tensor: _Tensor, load: Callable[[_Storage], bytes]) -> np.ndarray:
    storage, offset, shape, stride = tensor
    values = np.frombuffer(load(storage), storage.dtype)
    size = math.prod(shape)
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    inside = offset >= 0 and all(n >= 0 for n in shape) and all(step >= 0 for step in stride)
    if size and not (inside and last < len(values) and size <= len(values)):
        raise ValueError(f"{name} of shape {shape} does not fit its {len(values)} numbers")
    if not size:
        return np.zeros(shape, storage.dtype)
    steps = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], shape, steps).copy()
