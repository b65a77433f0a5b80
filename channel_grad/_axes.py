"""Axis specs: which axis of which leaf a metric acts along. Data given by the caller, or a preset.

A kernel's rank does not say which of its axes holds the output channels: Flax puts them last,
PyTorch and Equinox first, and transposed convolutions swap them. So a spec is any of

* a function ``(path, leaf) -> axis``, with the path as `jax.tree_util` gives it;
* a tree of axes with the structure of the parameters, or of the top of it;
* an `AxisSpec`, which holds either; the presets are of that kind.

An axis is an integer (negative ones count from the end), or None to leave the leaf alone, or a
tuple of integers: those axes are flattened into a single one, the last of them running fastest.
(To smooth along one axis after another instead, chain two transformations.) In a tree of axes, a
tuple of integers is always one such leaf.
"""

import dataclasses
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.tree_util as jtu
import numpy as np

Axis = int | tuple[int, ...] | None
Path = tuple[Any, ...]

# What Flax NNX puts behind the name of a parameter, in the path of its value.
_WRAPPERS = ("value", "raw_value")


class AxisSpec:
    """An axis spec as one opaque object: a function, or a tree of axes.

    `optax.inject_hyperparams` takes every callable argument for a schedule and every number for a
    hyperparameter. An AxisSpec is neither, so it passes through unharmed, where a plain function
    or a plain axis would need ``static_args=("axes",)``.

    Args:
        spec: a function ``(path, leaf) -> axis``, or a tree of axes, or an AxisSpec.
        name: shown by repr.

    Example:
        >>> matrices = AxisSpec(lambda path, leaf: -1 if leaf.ndim == 2 else None)
        >>> schedule = optax.linear_schedule(2.0, 0.5, 1000)
        >>> optax.inject_hyperparams(scale_by_sobolev)(lam=schedule, axes=matrices)
    """

    def __init__(self, spec: Any, name: str | None = None):
        self._spec = spec._spec if isinstance(spec, AxisSpec) else spec
        self._name = name or f"AxisSpec({self._spec!r})"
        if isinstance(self._spec, jax.Array):
            raise ValueError(
                f"axes came as an array, {self._spec!r}; accepted: an integer, a tuple, None, a "
                "tree of these, a function (path, leaf) -> axis, or an AxisSpec. "
                "optax.inject_hyperparams makes an array of an integer: write axes=AxisSpec(-1)"
            )

    def __repr__(self) -> str:
        return self._name

    def resolve(self, tree: Any) -> dict[Path, tuple[int, ...] | None]:
        """For each leaf's path, its axes as numbers >= 0, in the order given, or None.

        Args:
            tree: gradients or parameters; arrays, tracers or `jax.ShapeDtypeStruct`.

        Raises:
            ValueError: if a leaf has no such axis, or a tree of axes has no entry for it; names
                the leaf's path.
        """
        # A tree of axes may be an Equinox module, and then it is callable as well.
        is_function = callable(self._spec) and jtu.all_leaves([self._spec])
        find = self._spec if is_function else _look_up(self._spec)
        leaves = jtu.tree_leaves_with_path(tree)
        return {path: _check(path, leaf, find(path, leaf)) for path, leaf in leaves}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a library keeps the channels of its kernels: the source of the presets.

    Args:
        kernel: the name of a kernel among a layer's parameters, the last part of the leaf's path.
        output, input: the axes of output and input channels.

    Example:
        >>> mine = Layout(kernel="filters", output=0, input=-1)
        >>> scale_by_sobolev(axes=mine.output_axes)
    """

    kernel: str
    output: int
    input: int

    @property
    def output_axes(self) -> AxisSpec:
        """The output channels of convolution kernels: of that name, with three axes or more."""
        return AxisSpec(self._where(3, lambda rank: self.output), f"{self!r}.output_axes")

    @property
    def input_axes(self) -> AxisSpec:
        """The input channels of convolution kernels."""
        return AxisSpec(self._where(3, lambda rank: self.input), f"{self!r}.input_axes")

    @property
    def all_kernels(self) -> AxisSpec:
        """The output channels of convolution and dense kernels: two axes or more."""
        return AxisSpec(self._where(2, lambda rank: self.output), f"{self!r}.all_kernels")

    @property
    def raster(self) -> AxisSpec:
        """Convolution kernels flattened as a whole, in the order output, input, height, width."""
        return AxisSpec(self._where(3, self._all_axes), f"{self!r}.raster")

    def _all_axes(self, rank: int) -> tuple[int, ...]:
        channels = (self.output % rank, self.input % rank)
        return (*channels, *(axis for axis in range(rank) if axis not in channels))

    def _where(self, least_rank: int, axis: Callable[[int], Axis]) -> Callable[[Path, Any], Axis]:
        def spec(path: Path, leaf: Any) -> Axis:
            rank = len(np.shape(leaf))
            return axis(rank) if rank >= least_rank and leaf_name(path) == self.kernel else None

        return spec


# Flax, Linen and NNX alike (the paths of NNX end in ".value", which is skipped): (height, width,
# input, output). Not for ConvTranspose with transpose_kernel=True, which swaps the last two, nor
# for attention, whose kernels of rank 3 are not convolutions.
flax_layout = Layout(kernel="kernel", output=-1, input=-2)
nnx_layout = flax_layout
# Haiku: as Flax, under another name. Not for its ConvNDTranspose.
haiku_layout = Layout(kernel="w", output=-1, input=-2)
# Equinox, and PyTorch's naming: (output, input, height, width). Not for PyTorch's ConvTranspose,
# which swaps the first two, nor for a LayerNorm over three axes or more, whose scale is named
# weight as well.
equinox_layout = Layout(kernel="weight", output=0, input=1)
torch_layout = equinox_layout

output_axes = flax_layout.output_axes
input_axes = flax_layout.input_axes
all_kernels = flax_layout.all_kernels
raster = flax_layout.raster


def leaf_name(path: Path) -> str:
    """The parameter's own name: "kernel" of ['conv']['kernel'].value."""
    names = [str(_plain(key)) for key in path]
    while len(names) > 1 and names[-1] in _WRAPPERS:
        names.pop()
    return names[-1].rsplit(".", 1)[-1] if names else ""


def _plain(key: Any) -> Any:
    """The name, key or position within a key of a path, whatever the kind of container."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key


def _look_up(axes: Any) -> Callable[[Path, Any], Any]:
    """A tree of axes as a function: the entry whose path is the start of the leaf's path.

    By path rather than by structure, because optax.masked replaces leaves and whole branches with
    empty nodes.
    """

    def is_axis(node: Any) -> bool:
        numbers = isinstance(node, tuple) and node and all(isinstance(i, int) for i in node)
        return node is None or bool(numbers)

    entries = {
        tuple(map(_plain, path)): axis
        for path, axis in jtu.tree_leaves_with_path(axes, is_leaf=is_axis)
    }

    def find(path: Path, leaf: Any) -> Any:
        del leaf
        plain = tuple(map(_plain, path))
        for length in range(len(plain) + 1):
            if plain[:length] in entries:
                return entries[plain[:length]]
        known = ", ".join("/".join(map(str, entry)) or "(the whole tree)" for entry in entries)
        raise ValueError(
            f"axes has no entry for the leaf {jtu.keystr(path)}, only for {known or 'none'}; "
            "accepted: an axis, a tuple of axes or None for every leaf, or for a branch above it"
        )

    return find


def _check(path: Path, leaf: Any, axis: Any) -> tuple[int, ...] | None:
    """The axes of one leaf as numbers >= 0."""
    if axis is None:
        return None
    rank = len(np.shape(leaf))
    where = f"axes gave {axis!r} for the leaf {jtu.keystr(path)} of shape {tuple(np.shape(leaf))}"
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        numbers = tuple(operator.index(a) for a in given)
    except TypeError:
        numbers = ()
    if not numbers or any(isinstance(a, bool) for a in given):
        raise ValueError(f"{where}; accepted: an integer, a tuple of integers, or None")
    if not all(-rank <= a < rank for a in numbers):
        accepted = f"axes from {-rank} to {rank - 1}" if rank else "None, as it has no axes"
        raise ValueError(f"{where}; accepted: {accepted}")
    positive = tuple(a % rank for a in numbers)
    if len(set(positive)) < len(positive):
        raise ValueError(f"{where}; accepted: each axis once")
    return positive
