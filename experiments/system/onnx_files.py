"""The convolution kernels of an .onnx file."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from experiments.system.errors import ConfigError, UserError


class Convolution(NamedTuple):
    """One convolution of a network.

    Attributes:
      kernel: (out, in / groups, *window).
      groups: 1 where all inputs meet all outputs; the number of channels where it is depthwise.
    """

    kernel: np.ndarray
    groups: int


def read_convolutions(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Convolution], dict[str, str]]:
    """The convolutions of an .onnx file by the name of their kernel, in the order of the graph.

    Weights may also be in files beside it. The kernel of a ConvTranspose, which is stored as
    (in, out / groups, *window), is returned with outputs first.

    Returns:
      The convolutions, and {name: reason} of the kernels that were left out: of a ConvTranspose
      with more than one group, and those that other nodes compute (a quantized one).

    Raises:
      ConfigError: the package onnx is not installed.
      UserError: the file is not there, is no .onnx file, or lacks a file of its weights.
    """
    path = pathlib.Path(path)
    try:
        import onnx
        import onnx.inliner
        from google.protobuf.message import DecodeError
    except ImportError as error:
        accepted = "with the package onnx; install it with `pip install -e '.[onnx]'`"
        raise ConfigError("kernels", path, f".onnx files {accepted}") from error
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        if not model.HasField("graph"):
            raise ValueError("it has no graph")
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        return _convolutions(model.graph, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (DecodeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: is no .onnx file or is damaged ({_first_line(error)})") from error


def _convolutions(graph: Any, path: pathlib.Path) -> tuple[dict[str, Convolution], dict[str, str]]:
    tensors: dict[str, Any] = {}
    same: dict[str, str] = {}  # Outputs of Identity nodes, and what they repeat.
    found: list[tuple[str, str, int]] = []
    for part in _graphs(graph):
        tensors |= {tensor.name: tensor for tensor in part.initializer}
        for node in part.node:
            attributes = {attribute.name: attribute for attribute in node.attribute}
            if node.op_type == "Constant" and "value" in attributes:
                tensors[node.output[0]] = attributes["value"].t
            elif node.op_type == "Identity":
                same[node.output[0]] = node.input[0]
            elif node.op_type in ("Conv", "ConvTranspose"):
                groups = attributes["group"].i if "group" in attributes else 1
                found.append((node.op_type, node.input[1], groups))
    convolutions, left_out = {}, {}
    for operator, name, groups in found:
        for _ in same:  # No chain is longer, unless it is a circle.
            name = same.get(name, name)
        if name not in tensors:
            left_out[name] = "computed by other nodes, not kept in the file"
        elif operator == "ConvTranspose" and groups > 1:
            left_out[name] = f"a ConvTranspose with {groups} groups"
        else:
            kernel = _array(name, tensors[name], path)
            kernel = np.swapaxes(kernel, 0, 1) if operator == "ConvTranspose" else kernel
            convolutions[name] = Convolution(kernel, groups)
    return convolutions, left_out


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes, the branches of an If for example."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _graphs(inner)


def _array(name: str, tensor: Any, path: pathlib.Path) -> np.ndarray:
    from onnx import TensorProto, numpy_helper

    try:
        return numpy_helper.to_array(tensor, str(path.parent))
    except Exception as error:  # The package's errors have no type in common.
        if tensor.data_location == TensorProto.EXTERNAL:
            place = {entry.key: entry.value for entry in tensor.external_data}.get("location")
            raise UserError(
                f"{path}: {name} is kept in another file, {place}, that cannot be read: "
                f"{_first_line(error)}"
            ) from error
        raise ValueError(f"{name}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
