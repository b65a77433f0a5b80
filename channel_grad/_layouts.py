"""Presets: where libraries keep the channels of their kernels, and which leaves are convolutions.

A leaf does not say that it is the kernel of a convolution: attention and stacks of layers have
kernels of the same name and rank. The presets ask, in this order,

1. the type of the module, where the tree holds modules (Equinox);
2. the bias beside the kernel: several axes are those of a stack or of a general dense layer; one
   axis rules a stack out, and its length says which axis holds the output channels;
3. the biases of the other layers in what may be a stack;
4. names, where shapes leave a doubt.

What still remains in doubt is left alone; `channel_grad.describe` says why.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from channel_grad._axes import AxisSpec, Decision, Path, Surroundings, leaf_names

# Names of modules, matched with `re.search` in lower case.
_CONVOLUTION = re.compile("conv")
_TRANSPOSED = re.compile("transpose|deconv|upconv")
# Layers whose kernels have three axes or more and that are no convolutions, although their bias may
# have one axis.
_DENSE = re.compile("dense|linear|attention|attn|(^|_)(query|key|value|qkv|kv)(_|$)")
# Without a bias, these names speak against a convolution, too.
_NO_CONVOLUTION = re.compile("mlp|norm|embed|(^|_)(out|proj)(_|$)")
_ATTENTION = re.compile("attention|attn")
# A list of layers: its number, or a name of Linen such as "layers_0".
_LISTED = re.compile(r"^((layers|blocks|modules)_)?\d+$")
# What nn.scan, nn.vmap and Haiku's layer_stack put into the names of what they make, and what
# people call it.
_STACK = re.compile(r"^(Scan|Vmap)[A-Z]|^(scan|vmap)(_|$)|layer_stack|(^|_)stacked(_|$)")
# The same, unless a list of layers follows; or a 3D convolution in a module of such a name.
_PLURAL = re.compile("^(layers|blocks|stack)$")


class _Kind(NamedTuple):
    """What a kernel is.

    Attributes:
        name: "convolution", "transposed", or None for everything else.
        why: why it is nothing else, or none of these.
        swapped: whether a transposed convolution has its channels where a convolution has them.
    """

    name: str | None
    why: str
    swapped: bool = False


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where a library keeps the channels of its kernels: the source of the presets.

    Passed as ``axes``, a layout stands for its ``output_axes``.

    Args:
        kernel: the name of a kernel among a layer's parameters, the last part of the leaf's path.
        output, input: the axes of output and input channels.
        transposed_output, transposed_input: the same for transposed convolutions; None: as
            ``output`` and ``input``.
        layers: the axis along which layers are stacked in every kernel, or None. The other axes
            are counted without it.
        name: shown by repr.

    Example:
        >>> import channel_grad
        >>> mine = channel_grad.Layout(kernel="filters", output=0, input=-1)
        >>> transform = channel_grad.scale_by_sobolev(axes=mine.output_axes.exclude("head"))
    """

    kernel: str
    output: int
    input: int
    transposed_output: int | None = None
    transposed_input: int | None = None
    layers: int | None = None
    name: str = dataclasses.field(default="", compare=False)

    def __repr__(self) -> str:
        if self.name:
            return self.name
        fields = (f for f in dataclasses.fields(self) if f.name != "name")
        values = ((f.name, getattr(self, f.name), f.default) for f in fields)
        shown = ", ".join(f"{name}={value!r}" for name, value, usual in values if value != usual)
        return f"Layout({shown})"

    @property
    def output_axes(self) -> AxisSpec:
        """The output channels of convolution kernels, transposed convolutions left out."""
        return self._spec("output_axes", "output")

    @property
    def input_axes(self) -> AxisSpec:
        """The input channels of convolution kernels, transposed convolutions left out."""
        return self._spec("input_axes", "input")

    @property
    def transposed_output_axes(self) -> AxisSpec:
        """The output channels of transposed convolutions, and nothing else."""
        return self._spec("transposed_output_axes", "output", transposed=True)

    @property
    def transposed_input_axes(self) -> AxisSpec:
        """The input channels of transposed convolutions, and nothing else."""
        return self._spec("transposed_input_axes", "input", transposed=True)

    @property
    def all_kernels(self) -> AxisSpec:
        """The output channels of convolution kernels and of dense kernels, which have two axes."""
        return self._spec("all_kernels", "output", dense=True)

    @property
    def raster(self) -> AxisSpec:
        """Convolution kernels flattened as a whole, in the order output, input, height, width."""
        return self._spec("raster", "raster")

    def stacked(self, layers: int = 0) -> Layout:
        """This layout for the kernels of stacked layers.

        Such are made by nn.scan, nn.vmap, eqx.filter_vmap and layer_stack. It takes every kernel
        for a stack, but where the module or the bias says that it is none. If some are not,
        combine:
        ``flax_layout.stacked(0).output_axes.only("ScanBlock") | flax_layout.output_axes``.

        Args:
            layers: the axis along which the layers lie.

        Example:
            >>> import channel_grad
            >>> channel_grad.flax_layout.stacked(0).output_axes
            channel_grad.flax_layout.stacked(0).output_axes
        """
        return dataclasses.replace(self, layers=layers, name=f"{self!r}.stacked({layers})")

    def _spec(
        self, name: str, direction: str, transposed: bool = False, dense: bool = False
    ) -> AxisSpec:
        rule = _Kernels(self, direction, transposed, dense)
        return AxisSpec.from_rule(rule, f"{self!r}.{name}")

    def _transposed_axes(self) -> tuple[int, int]:
        """The axes of output and input channels of transposed convolutions."""
        output, input = self.transposed_output, self.transposed_input
        return (
            self.output if output is None else output,
            self.input if input is None else input,
        )


@dataclasses.dataclass(frozen=True)
class _Kernels:
    """The rule that selects the kernels of one kind, and one direction in them.

    Attributes:
        direction: "output", "input" or "raster".
        transposed: the kernels of transposed convolutions, in place of those of convolutions.
        dense: dense kernels, too.
    """

    layout: Layout
    direction: str
    transposed: bool
    dense: bool

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        layout = self.layout
        *modules, name = leaf_names(path)
        if name != layout.kernel:
            return Decision(None, f"not named {layout.kernel!r}")
        shape = tuple(np.shape(leaf))
        kept = list(_without_layers(tuple(range(len(shape))), layout.layers))
        if self.dense and len(kept) == 2:
            return Decision(kept[layout.output], "dense kernel")
        bias = around.bias(modules)
        one = tuple(shape[axis] for axis in kept)
        kind = _kind(layout, modules, around, around.owner(path), one, bias)
        wanted = "transposed" if self.transposed else "convolution"
        if kind.name != wanted:
            why = kind.why
            if kind.name == "transposed":
                why = f"{kind.why}: see {layout!r}.transposed_output_axes"
            elif kind.name:
                why = "no transposed convolution"
            # A bias of one axis is that of a convolution, unless a dense layer takes several axes.
            plain = len(one) in (4, 5) and bias is not None and len(bias) == 1
            return Decision(None, why, in_doubt=plain and not self.transposed)
        output, input = layout.output, layout.input
        if self.transposed and not kind.swapped:
            output, input = layout._transposed_axes()
        if self.direction == "raster":
            first = (kept[output], kept[input])
            return Decision((*first, *(axis for axis in kept if axis not in first)), kind.why)
        axis = output if self.direction == "output" else input
        return Decision(axis if layout.layers is None else kept[axis], kind.why)


def _without_layers(shape: tuple[int, ...], layers: int | None) -> tuple[int, ...]:
    """A shape without the axis along which layers are stacked."""
    if layers is None or not -len(shape) <= layers < len(shape):
        return shape
    layers %= len(shape)
    return shape[:layers] + shape[layers + 1 :]


def _kind(
    layout: Layout,
    modules: list[str],
    around: Surroundings,
    owner: Any,
    shape: tuple[int, ...],
    bias: tuple[int, ...] | None,
) -> _Kind:
    """What a kernel is, from the shapes around it and, last of all, from names.

    Args:
        layout: where its channels are.
        modules: the names that lead to it.
        around: the tree that holds it.
        owner: the container that holds it.
        shape: its own, without an axis of stacked layers.
        bias: the shape of the bias beside it, or None.
    """
    rank, wants_stack = len(shape), layout.layers is not None
    if rank < 3:
        return _Kind(None, f"a convolution kernel has three axes or more, this one {rank}")
    # The module that owns the kernel: in a list of modules, the name of the list.
    module = next((name for name in reversed(modules) if not name.isdigit()), "")
    is_module = not isinstance(owner, dict | list | tuple | type(None))
    words = [word.lower() for word in (module, type(owner).__name__ if is_module else "")]

    def says(pattern: re.Pattern[str]) -> bool:
        return any(pattern.search(word) for word in words)

    spatial = getattr(owner, "num_spatial_dims", None)  # Equinox says it; its biases are not flat
    if isinstance(spatial, int):
        if rank != spatial + 2:
            why = f"{rank} axes in a {spatial}D convolution"
            return _Kind(None, why if wants_stack else f"{why}: see {layout!r}.stacked")
        if says(_TRANSPOSED):
            return _Kind("transposed", "transposed convolution")
        return _Kind("convolution", "convolution kernel")

    if wants_stack and bias is not None:
        if len(bias) == 1:
            return _Kind(None, "no stack, as its bias has one axis")
        bias = _without_layers(bias, layout.layers)
    if bias is not None and len(bias) > 1:
        why = f"stacked layers or no convolution, as its bias has {len(bias)} axes"
        return _Kind(None, why if wants_stack else f"{why}: see {layout!r}.stacked")
    if bias is None and not wants_stack:
        stack = _stack_by_name(modules, around, rank)
        if stack:
            return _Kind(None, f"{stack} is the name of stacked layers: see {layout!r}.stacked")

    if not says(_CONVOLUTION):
        why = _not_a_convolution(layout, modules, rank, bias, says, is_module)
        if why:
            return _Kind(None, why)
    elif rank > 5:
        return _Kind(None, f"no convolution kernel has {rank} axes: see stacked")
    return _which_convolution(layout, shape, bias, says(_TRANSPOSED))


def _stack_by_name(modules: list[str], around: Surroundings, rank: int) -> str:
    """The name that says that a kernel without a bias is stacked, or ""."""
    for depth, name in enumerate(modules, 1):
        if around.has_plain_bias(modules[:depth]):
            continue  # another layer in it is not stacked
        if _STACK.search(name):
            return name
        listed = any(_LISTED.search(below) for below in modules[depth:])
        # Without a bias, a stack of 1D convolutions looks as a 2D convolution, which is usual.
        if rank > 4 and _PLURAL.search(name.lower()) and modules[depth:] and not listed:
            return name
    return ""


def _not_a_convolution(
    layout: Layout, modules: list[str], rank: int, bias: Any, says: Any, is_module: bool
) -> str:
    """Why a kernel whose module is not named a convolution is none; "" if it is one all the same.

    Flax alone has dense layers over several axes, `DenseGeneral` and those of attention.
    """
    not_named = f"{'/'.join(modules)} is not named a convolution"
    general = f"{rank} axes, and its module is not named a convolution"
    if says(_DENSE):
        return not_named
    if rank > 5:
        return general
    flax = layout.kernel == "kernel"
    if bias is None and (
        says(_NO_CONVOLUTION) or any(_ATTENTION.search(name.lower()) for name in modules)
    ):
        return not_named
    if rank > 3 or not modules or (not flax and not is_module):
        return ""
    listed = bias is not None and _LISTED.search(modules[-1]) is not None
    return "" if listed else general


def _which_convolution(
    layout: Layout, shape: tuple[int, ...], bias: tuple[int, ...] | None, named_transposed: bool
) -> _Kind:
    """Transposed or not: by the axis that is as long as the bias, and by name where both are."""
    usual = _Kind("convolution", "convolution kernel")
    transposed = _Kind("transposed", "transposed convolution")
    if bias is None or len(bias) != 1:
        return transposed if named_transposed else usual
    is_output = shape[layout.output] == bias[0]
    is_transposed = shape[layout._transposed_axes()[0]] == bias[0]
    if named_transposed:
        # Flax's ConvTranspose(transpose_kernel=False) has its channels where Conv has them.
        swapped = layout.kernel == "kernel" and is_output and not is_transposed
        return transposed._replace(swapped=swapped)
    if is_output:
        return usual
    if is_transposed:
        return transposed._replace(why="transposed convolution, by the length of its bias")
    why = f"the axis of its output channels has {shape[layout.output]} entries, its bias {bias[0]}"
    return _Kind(None, why)


# Flax, Linen and NNX alike: (height, width, input, output). For transposed convolutions, the
# layout of transpose_kernel=True, which swaps the last two axes; with transpose_kernel=False they
# lie as in a convolution: Layout("kernel", -1, -2).transposed_output_axes.
flax_layout = Layout("kernel", -1, -2, -2, -1, name="channel_grad.flax_layout")
nnx_layout = flax_layout
# Haiku: as Flax, under another name; its transposed convolutions swap the last two axes.
haiku_layout = Layout("w", -1, -2, -2, -1, name="channel_grad.haiku_layout")
# Equinox: (output, input, height, width), also for transposed convolutions.
equinox_layout = Layout("weight", 0, 1, name="channel_grad.equinox_layout")
# PyTorch: as Equinox, but its transposed convolutions swap the first two axes.
torch_layout = Layout("weight", 0, 1, 1, 0, name="channel_grad.torch_layout")

output_axes = AxisSpec(flax_layout.output_axes, "channel_grad.output_axes")
input_axes = AxisSpec(flax_layout.input_axes, "channel_grad.input_axes")
all_kernels = AxisSpec(flax_layout.all_kernels, "channel_grad.all_kernels")
raster = AxisSpec(flax_layout.raster, "channel_grad.raster")
