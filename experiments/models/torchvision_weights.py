"""Weights of a ResNet in torchvision's names, put into our encoder.

torchvision's kernels are (output, input, height, width), ours (height, width, input, output). A
file is made in a Python with torch by

    state = torchvision.models.resnet50(weights="DEFAULT").state_dict()
    numpy.savez("resnet50.npz", **{name: tensor.numpy() for name, tensor in state.items()})

or is the .safetensors file that model hubs offer.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.system.errors import UserError
from experiments.system.tensor_files import read_tensors, weights

# The pixels that the published weights were trained on, scaled to [0, 1].
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_LAYER = re.compile(r"layer(\d)_(\d+)")
_DOWNSAMPLE = {"downsample_conv": "downsample.0", "downsample_bn": "downsample.1"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_STATISTICS = {"mean": "running_mean", "var": "running_var"}
# The classifier of ImageNet, and a counter.
_UNUSED = re.compile(r"fc\.(weight|bias)|.*\.num_batches_tracked")


def load(path: pathlib.Path, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables of an encoder with the weights of a file in place of theirs.

    Args:
      path: a .npz or .safetensors file with torchvision's names.
      variables: {"params", "batch_stats"} of a `ResNetEncoder`.

    Returns:
      Variables of the same structure, float32.

    Raises:
      UserError: the file cannot be read, or a tensor is missing, is one too many, has another shape
        or is not finite.
    """
    read = read_tensors(path)
    tensors = {name: tensor for name, tensor in read.items() if not _UNUSED.fullmatch(name)}
    try:
        return from_torchvision(tensors, variables)
    except ValueError as error:
        skipped = "".join(f"; {name} was skipped: {why}" for name, why in read.skipped.items())
        raise UserError(f"{path}: {error}{skipped}") from error


def from_torchvision(
    tensors: Mapping[str, np.ndarray], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Variables of an encoder made of tensors with torchvision's names.

    Args:
      tensors: by name, without the classifier.
      variables: {"params", "batch_stats"} of a `ResNetEncoder`; only their shapes are used.

    Raises:
      ValueError: a tensor is missing, is one too many, has another shape or is not finite.

    Example:
      >>> tensors = {"conv1.weight": np.zeros((8, 3, 7, 7))}
      >>> variables = {"params": {"conv1": {"kernel": np.zeros((7, 7, 3, 8))}}, "batch_stats": {}}
      >>> from_torchvision(tensors, variables)["params"]["conv1"]["kernel"].shape
      (7, 7, 3, 8)
    """
    wanted = flatten_dict(dict(variables))
    names = {path: torchvision_name(path) for path in wanted}
    missing = sorted(set(names.values()) - set(tensors))
    surplus = sorted(set(tensors) - set(names.values()))
    if missing or surplus:
        parts = [_several(found, word) for found, word in ((missing, "no"), (surplus, "a surplus"))]
        raise ValueError(
            f"got {' and '.join(part for part in parts if part)}; accepted: the "
            f"{len(names)} tensors of this encoder"
        )
    found = {}
    for path, name in names.items():
        tensor, shape = tensors[name], wanted[path].shape
        if tensor.ndim == 4:
            shape = (shape[3], shape[2], shape[0], shape[1]) if len(shape) == 4 else shape
        tensor = weights(tensors, name, shape)
        found[path] = tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor
    return {"params": {}, "batch_stats": {}, **unflatten_dict(found)}


def to_torchvision(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The variables of an encoder with torchvision's names and layout; see `from_torchvision`."""
    tensors = {}
    for path, leaf in flatten_dict(dict(variables)).items():
        leaf = np.asarray(leaf)
        tensors[torchvision_name(path)] = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
    return tensors


def torchvision_name(path: tuple[str, ...]) -> str:
    """torchvision's name of a variable of the encoder.

    Example:
      >>> torchvision_name(("params", "layer2_0", "downsample_conv", "kernel"))
      'layer2.0.downsample.0.weight'
      >>> torchvision_name(("batch_stats", "bn1", "var"))
      'bn1.running_var'
    """
    collection, *modules, leaf = path
    modules = [_DOWNSAMPLE.get(name, _LAYER.sub(r"layer\1.\2", name)) for name in modules]
    leaf = (_LEAVES if collection == "params" else _STATISTICS)[leaf]
    return ".".join([*modules, leaf])


def _several(names: list[str], word: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{word} {', '.join(names[:3])}{more}"
