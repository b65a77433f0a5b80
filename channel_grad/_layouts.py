"""Presets: where libraries keep the channels of their kernels, and which leaves are convolutions.

A leaf does not say that it is the kernel of a convolution: attention and stacks of dense layers
have kernels of the same name and rank. The presets therefore look at the names on the path, at the
type of the module where the tree holds modules (Equinox), and at the rank of the bias beside the
kernel. What remains in doubt is left alone; `channel_grad.describe` says why.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np

from channel_grad._axes import AxisSpec, Decision, Path, path_string

# Names of modules, matched with `re.search` in lower case.
_CONVOLUTION = re.compile("conv")
_TRANSPOSED = re.compile("transpose|deconv|upconv")
_NO_CONVOLUTION = re.compile(
    "dense|linear|mlp|norm|embed|attention|attn|(^|_)(query|key|value|out|qkv|kv|[qkvo]_proj)(_|$)"
)
_ATTENTION = re.compile("attention|attn")
# nn.scan, nn.vmap and Haiku's layer_stack put these into the names of what they make.
_STACK = re.compile("^(scan|vmap)|layer_stack|stacked")
# A list of layers goes on with a number; without one, these names are those of stacks.
_PLURAL = re.compile("^(layers|blocks|stack)$")


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
        return self._spec("output_axes", (self.output,))

    @property
    def input_axes(self) -> AxisSpec:
        """The input channels of convolution kernels, transposed convolutions left out."""
        return self._spec("input_axes", (self.input,))

    @property
    def transposed_output_axes(self) -> AxisSpec:
        """The output channels of transposed convolutions, and nothing else."""
        axis = self.output if self.transposed_output is None else self.transposed_output
        return self._spec("transposed_output_axes", (axis,), transposed=True)

    @property
    def transposed_input_axes(self) -> AxisSpec:
        """The input channels of transposed convolutions, and nothing else."""
        axis = self.input if self.transposed_input is None else self.transposed_input
        return self._spec("transposed_input_axes", (axis,), transposed=True)

    @property
    def all_kernels(self) -> AxisSpec:
        """The output channels of convolution kernels and of dense kernels, which have two axes."""
        return self._spec("all_kernels", (self.output,), dense=True)

    @property
    def raster(self) -> AxisSpec:
        """Convolution kernels flattened as a whole, in the order output, input, height, width."""
        return self._spec("raster", (self.output, self.input), whole=True)

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
        self,
        name: str,
        axes: tuple[int, ...],
        transposed: bool = False,
        dense: bool = False,
        whole: bool = False,
    ) -> AxisSpec:
        """The axes of the kernels of one kind; with ``whole``, followed by all other axes."""

        def rule(path: Path, leaf: Any, owner: Any) -> Decision:
            # Haiku joins the names of modules by slashes, PyTorch by dots.
            names = path_string(path).replace(".", "/").split("/")
            if names[-1] != self.kernel:
                return Decision(None, f"not named {self.kernel!r}")
            rank = len(np.shape(leaf))
            kept = list(range(rank))
            if self.layers is not None and -rank <= self.layers < rank:
                kept.remove(self.layers % rank)
            if dense and len(kept) == 2:
                return Decision(kept[self.output], "dense kernel")
            why = self._why_not(names[:-1], owner, len(kept), transposed)
            if why:
                return Decision(None, why)
            kind = "transposed convolution" if transposed else "convolution kernel"
            if whole:
                first = tuple(kept[axis] for axis in axes)
                return Decision((*first, *(axis for axis in kept if axis not in first)), kind)
            (axis,) = axes
            return Decision(axis if self.layers is None else kept[axis], kind)

        return AxisSpec.from_rule(rule, f"{self!r}.{name}")

    def _why_not(self, modules: list[str], owner: Any, rank: int, transposed: bool) -> str:
        """Why a kernel is left alone; "" if it is that of a convolution of the kind wanted."""
        if rank < 3:
            return f"a convolution kernel has three axes or more, this one {rank}"
        # The module that owns the kernel: in a list of modules, the name of the list.
        module = next((name for name in reversed(modules) if not name.isdigit()), "")
        kind = "" if isinstance(owner, dict | list | tuple) else type(owner).__name__
        words = [word.lower() for word in (module, kind)]

        def says(pattern: re.Pattern[str]) -> bool:
            return any(pattern.search(word) for word in words)

        if says(_TRANSPOSED) != transposed:
            return (
                "not named a transposed convolution"
                if transposed
                else f"transposed convolution: see {self!r}.transposed_output_axes"
            )
        stack = _stack(modules, owner, rank, self.layers is not None)
        if stack:
            return stack if self.layers is not None else f"{stack}: see {self!r}.stacked"
        if says(_CONVOLUTION):
            return "" if rank <= 5 else f"no convolution kernel has {rank} axes: see stacked"
        if says(_NO_CONVOLUTION) or any(_ATTENTION.search(name.lower()) for name in modules):
            return f"{'/'.join(modules)} is not named a convolution"
        # The rank of 2D and 3D convolutions, or a layer by itself, and nothing speaks against it.
        if rank in (4, 5) or (rank == 3 and not module):
            return ""
        return f"{rank} axes, and its module is not named a convolution"


def _stack(modules: list[str], owner: Any, rank: int, wanted: bool) -> str:
    """What says that a kernel is a stack of several kernels, or, if wanted, that it is none; ""."""
    spatial = getattr(owner, "num_spatial_dims", None)  # Equinox says it
    if isinstance(spatial, int):
        return "" if rank == spatial + 2 else f"{rank} axes in a {spatial}D convolution"
    bias_rank = len(getattr(_bias(owner), "shape", ()))
    if wanted:
        return "no stack, as its bias has one axis" if bias_rank == 1 else ""
    for name, following in zip(modules, (*modules[1:], ""), strict=False):
        plural = _PLURAL.search(name.lower()) and following and not following.isdigit()
        if plural or _STACK.search(name.lower()):
            return f"{name} is the name of stacked layers"
    if bias_rank > 1:
        return f"stacked layers or no convolution, as its bias has {bias_rank} axes"
    return ""


def _bias(owner: Any) -> Any:
    """The bias beside a kernel, in a container that is like a dict, or None."""
    for name in ("bias", "b"):
        try:
            return owner[name]
        except (KeyError, IndexError, TypeError):
            continue
    return None


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
