"""The convolution kernels of an .onnx file, read without the `onnx` package.

An .onnx file is one protocol buffer (a ModelProto of onnx.proto3). Only what leads to a kernel is
decoded: the graph's nodes of type Conv and ConvTranspose, and the tensors that they name, which are
initializers or the values of Constant nodes. The numbers below are those of onnx.proto3.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import ml_dtypes
import numpy as np

from experiments.system.errors import UserError

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER = 1, 5
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER, _ATTRIBUTE_TENSOR = 1, 3, 5
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW, _TENSOR_LOCATION = 1, 2, 8, 9, 14
# By data type: the dtype, and the field where values are kept if they are not in raw_data.
_TENSOR_TYPES = {
    1: (np.dtype("<f4"), 4),
    10: (np.dtype("<f2"), None),
    11: (np.dtype("<f8"), 10),
    16: (np.dtype(ml_dtypes.bfloat16), None),
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class Convolution(NamedTuple):
    """One convolution of a network.

    Attributes:
      kernel: (out, in / groups, *window).
      groups: 1 where all inputs meet all outputs; the number of channels where it is depthwise.
    """

    kernel: np.ndarray
    groups: int


def read_convolutions(path: pathlib.Path) -> dict[str, Convolution]:
    """The convolutions of an .onnx file by the name of their kernel, in the order of the graph.

    The kernel of a ConvTranspose, which is stored as (in, out / groups, *window), is returned with
    outputs first; with more than one group it is left out. A kernel that is computed by other nodes
    (a quantized one) is left out.

    Raises:
      UserError: the file is not there, is no .onnx file, or keeps its weights in other files.
    """
    try:
        return _convolutions(memoryview(path.read_bytes()))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, IndexError) as error:
        raise UserError(f"{path}: is no .onnx file or is damaged ({error})") from error


def _convolutions(model: memoryview) -> dict[str, Convolution]:
    graphs = [value for number, value in _fields(model) if number == _MODEL_GRAPH]
    if len(graphs) != 1 or not isinstance(graphs[0], memoryview):
        raise ValueError(f"it has {len(graphs)} graphs")
    tensors: dict[str, memoryview] = {}
    same: dict[str, str] = {}  # Outputs of Identity nodes, and what they repeat.
    found: list[tuple[str, str, int]] = []
    for number, value in _fields(graphs[0]):
        if number == _GRAPH_INITIALIZER:
            tensors[_text(value, _TENSOR_NAME)] = value
        elif number == _GRAPH_NODE:
            operator, inputs = _text(value, _NODE_OPERATOR), _texts(value, _NODE_INPUT)
            attributes = {
                _text(a, _ATTRIBUTE_NAME): dict(_fields(a))
                for n, a in _fields(value)
                if n == _NODE_ATTRIBUTE
            }
            if operator == "Constant" and _ATTRIBUTE_TENSOR in attributes.get("value", {}):
                name = _text(value, _NODE_OUTPUT)
                tensors[name] = attributes["value"][_ATTRIBUTE_TENSOR]
            elif operator == "Identity":
                same[_text(value, _NODE_OUTPUT)] = inputs[0]
            elif operator in ("Conv", "ConvTranspose"):
                groups = attributes.get("group", {}).get(_ATTRIBUTE_INTEGER, 1)
                found.append((operator, inputs[1], groups))
    convolutions = {}
    for operator, name, groups in found:
        while name in same:
            name = same[name]
        if name not in tensors or (operator == "ConvTranspose" and groups > 1):
            continue
        kernel = _array(name, tensors[name])
        kernel = np.swapaxes(kernel, 0, 1) if operator == "ConvTranspose" else kernel
        convolutions[name] = Convolution(kernel, groups)
    return convolutions


def _array(name: str, tensor: memoryview) -> np.ndarray:
    """The values of a TensorProto."""
    shape: list[int] = []
    parts: dict[int, list] = {}
    for number, value in _fields(tensor):
        if number == _TENSOR_DIMS:
            shape += _varints(value) if isinstance(value, memoryview) else [value]
        else:
            parts.setdefault(number, []).append(value)
    if parts.get(_TENSOR_LOCATION, [0])[-1] == 1:
        raise ValueError(f"{name} is kept in another file; accepted: weights inside the .onnx file")
    kind = parts.get(_TENSOR_TYPE, [0])[-1]
    if kind not in _TENSOR_TYPES:
        raise ValueError(f"{name} has data type {kind}; accepted: {sorted(_TENSOR_TYPES)}")
    dtype, field = _TENSOR_TYPES[kind]
    data = parts.get(_TENSOR_RAW) or parts.get(field, [])
    return np.frombuffer(b"".join(data), dtype).reshape(shape)


def _text(message: memoryview, field: int) -> str:
    return next(iter(_texts(message, field)), "")


def _texts(message: memoryview, field: int) -> list[str]:
    return [str(value, "utf-8") for number, value in _fields(message) if number == field]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protocol buffer; integers, or bytes still encoded."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(message, position)
            yield number, value
            continue
        if kind == _LENGTH:
            length, position = _varint(message, position)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            raise ValueError(f"field {number} has the unknown kind {kind}")
        if position + length > len(message):
            raise ValueError(f"field {number} ends behind the end of the file")
        yield number, message[position : position + length]
        position += length


def _varints(message: memoryview) -> list[int]:
    values, position = [], 0
    while position < len(message):
        value, position = _varint(message, position)
        values.append(value)
    return values


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An integer, seven bits in each byte, the lowest first; and the position behind it."""
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position
        if shift > 63:
            raise ValueError("an integer has more than 64 bits")
