"""The OptFlow regularizer of the 3D convolution kernels of a network.

A Flax or Haiku kernel is `(T, H, W, in, out)`, a PyTorch or Equinox kernel `(out, in, T, H, W)`.
The paper takes a weighted sum over the input channels, so that every output channel is one
spatiotemporal filter ("3D ConvNets with Optical Flow Based Regularization", section 3.3). For
colour input the luminance weights reproduce the paper's printed costs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, get_args

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from optflow_jax import _arguments
from optflow_jax._arguments import Layout
from optflow_jax._regularizer import cost_and_success
from optflow_jax._sharding import explicit_spec

if TYPE_CHECKING:
    from jax.typing import ArrayLike
    from jaxtyping import Array, Float

    from optflow_jax._arguments import OnFailure, Solver

# ITU-R BT.601 luma.
_RGB = (0.2989, 0.5870, 0.1140)
_NAMED = {"rgb": _RGB, "bgr": _RGB[::-1]}
_CHANNELS = "'mean', 'rgb', 'bgr' or one weight for each input channel"
# Names that Flax (nn.vmap, nn.scan) and Haiku (layer_stack, Conv2D) give to what they make.
_STACK = re.compile(
    r"^(Scan|Vmap)[A-Z]|^(scan|vmap)(_|$)|layer_stack|^conv2_?d(_\d+)?$|^Conv2D(_\d+)?$"
)
_SHAPES = {"flax": "(T, H, W, in, out)", "torch": "(out, in, T, H, W)"}


def _weights(channels: Any, count: int, dtype) -> jax.Array:
    """The weight of each input channel, `(count,)`."""
    if isinstance(channels, str):
        if channels == "mean":
            return jnp.full(count, 1 / count, dtype)
        if channels not in _NAMED:
            raise ValueError(f"channels: got {channels!r}; accepted: {_CHANNELS}")
        if count != 3:
            raise ValueError(
                f"channels: got {channels!r} for a kernel of {count} input channels; accepted: "
                "kernels of 3 input channels"
            )
        return jnp.asarray(_NAMED[channels], dtype)
    try:
        weights = jnp.asarray(channels)
    except (TypeError, ValueError) as error:
        raise ValueError(f"channels: got {channels!r}; accepted: {_CHANNELS}") from error
    if weights.shape != (count,) or jnp.iscomplexobj(weights):
        raise ValueError(
            f"channels: got {weights.dtype} of shape {weights.shape}; accepted: one weight for "
            f"each of the {count} input channels"
        )
    return weights.astype(dtype)


def _collapse(kernel: Any, channels: Any, layout: Any) -> tuple[jax.Array, Any]:
    """Filters `(out, T, H, W)` in the dtype of the computation, and the kernel's dtype."""
    layout = str(_arguments.choice("layout", layout or "flax", get_args(Layout)))
    kernel = _arguments.floating("kernel", kernel, _SHAPES[layout])
    if kernel.ndim != 5:
        raise ValueError(f"kernel: got shape {kernel.shape}; accepted: {_SHAPES[layout]}")
    dtype = kernel.dtype
    kernel = kernel.astype(_arguments.compute_dtype(dtype))
    inputs, formula = (3, "thwio,i->othw") if layout == "flax" else (1, "oithw,i->othw")
    weights = _weights(channels, kernel.shape[inputs], kernel.dtype)
    mesh, entries = explicit_spec(kernel)
    if mesh is None:
        return jnp.einsum(formula, kernel, weights, precision="highest"), dtype
    # With Explicit mesh axes the sharding of the result must be given. Each axis keeps its sharding
    # of the kernel; the sum over input channels is completed across devices.
    named = dict(zip(formula.split(",")[0], entries, strict=True))
    weights = jax.sharding.reshard(weights, NamedSharding(mesh, PartitionSpec(named["i"])))
    out = NamedSharding(mesh, PartitionSpec(*(named[axis] for axis in "othw")))
    collapsed = jnp.einsum(formula, kernel, weights, precision="highest", out_sharding=out)
    return collapsed, dtype


def collapse(
    kernel: Float[ArrayLike, "_ _ _ _ _"],
    channels: str | ArrayLike | Sequence[float] = "mean",
    *,
    layout: Layout = "flax",
) -> Float[Array, "out T H W"]:
    """One spatiotemporal filter per output channel.

    Args:
        kernel: the kernel of a 3D convolution, in the order that `layout` says.
        channels: how to weigh the input channels: "mean"; "rgb" or "bgr" for luminance; or one
            weight for each input channel.
        layout: "flax" for `(T, H, W, in, out)`, as in Flax and Haiku; "torch" for `(out, in, T, H,
            W)`, as in PyTorch and Equinox.

    Returns:
        The filters, `(out, T, H, W)`, in the kernel's dtype.

    Raises:
        ValueError: if the kernel's rank is not five or its dtype is not floating, if a name is
            unknown, if "rgb" or "bgr" is given and there are not three input channels, or if the
            number of weights is not `in`.

    Source: "3D ConvNets with Optical Flow Based Regularization", section 3.3.

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> optflow_jax.collapse(jnp.ones((4, 11, 11, 3, 96)), "rgb").shape
        (96, 4, 11, 11)
        >>> optflow_jax.collapse(jnp.ones((96, 3, 4, 11, 11)), "rgb", layout="torch").shape
        (96, 4, 11, 11)
    """
    filters, dtype = _collapse(kernel, channels, layout)
    return filters.astype(dtype)


def regularizer(
    kernel: Float[ArrayLike, "_ _ _ _ _"],
    *,
    channels: str | ArrayLike | Sequence[float] = "mean",
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
    solver: Solver = "auto",
    layout: Layout = "flax",
    on_failure: OnFailure = "nan",
) -> Float[Array, ""]:
    """The mean of R (see `cost`) over the filters of a kernel.

    The paper multiplies it by a strength of 1e-2 to 1e5.

    Args:
        kernel: the kernel of a 3D convolution, as for `collapse`.
        channels: as for `collapse`.
        alpha: as for `cost`, broadcastable to `(out,)`.
        temporal: as for `cost`.
        solver: as for `cost`.
        layout: as for `collapse`.
        on_failure: "nan": one filter without an accurate solution makes the mean NaN. "drop": the
            mean is over the other filters (0 if there are none), and the gradient of a dropped
            filter is zero. A filter that contains NaN is dropped too, so check the weights for NaN.

    Returns:
        A scalar in the kernel's dtype.

    Raises:
        ValueError: as `collapse` and `cost` do.

    Source: "3D ConvNets with Optical Flow Based Regularization", sections 3.3 and 4.3.

    Example:
        >>> import jax, jax.numpy as jnp, optflow_jax
        >>> def loss_fn(params):
        ...     kernel = params["Conv_0"]["kernel"]
        ...     return 1e-2 * optflow_jax.regularizer(kernel, channels="rgb")
        >>> kernel = jax.random.normal(jax.random.key(0), (3, 5, 5, 3, 8))
        >>> jax.grad(loss_fn)({"Conv_0": {"kernel": kernel}})["Conv_0"]["kernel"].shape
        (3, 5, 5, 3, 8)
    """
    filters, dtype = _collapse(kernel, channels, layout)
    costs, accurate = cost_and_success(filters, alpha, temporal, solver, on_failure)
    if on_failure == "nan":
        return jnp.mean(costs).astype(dtype)
    count = jnp.sum(accurate.astype(costs.dtype))
    return (jnp.sum(costs) / jnp.maximum(count, 1)).astype(dtype)


def first_convolution(params: Any, *, layout: Layout | None = None) -> str:
    """The path of the first 3D convolution's kernel, found by the numbers in the paths.

    A tree of parameters holds the names of the layers, not their order. If the paths of all kernels
    of rank five differ in numbers only (`Conv_0/kernel`, `Conv_1/kernel`, ...), the first is the
    one with the smallest numbers; otherwise the order is unknown, which is an error. Stacks of 2D
    kernels, recognised by their bias or by the name of a vectorised or scanned module, do not
    count as 3D convolutions.

    Args:
        params: a tree of parameters.
        layout: the layout of the kernels, as for `tree_regularizer`.

    Returns:
        The path, keys joined by "/"; NNX's ending "/value" is left out.

    Raises:
        ValueError: if there is no 3D kernel, if the paths do not tell which is first, or if a leaf
            is named "weight" and `layout` is None.

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> kernel = jnp.ones((3, 5, 5, 1, 8))
        >>> optflow_jax.first_convolution({"Conv_0": {"kernel": kernel}})
        'Conv_0/kernel'
    """
    leaves = named_leaves(params)
    paths = list(_convolutions(leaves, layout))
    if len({re.sub(r"_?\d+", "", path) for path in paths}) > 1:
        raise ValueError(f"where: got 'first' for {paths}, which have no order; accepted: one path")
    return min(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path)])


def tree_regularizer(
    params: Any,
    *,
    where: str | Callable[[str, jax.Array], bool] = "first",
    channels: str | ArrayLike | Sequence[float] = "mean",
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
    solver: Solver = "auto",
    layout: Layout | None = None,
    on_failure: OnFailure = "nan",
) -> Float[Array, ""]:
    """The sum of `regularizer` over chosen leaves of a tree of parameters.

    Args:
        params: a tree of parameters with the kernels of 3D convolutions.
        where: which leaves. "first": the first convolution only (see `first_convolution`). "all":
            every 3D convolution. Any other string: a regular expression, searched for in the path
            of a leaf (its keys joined by "/", without NNX's ending "/value"). A function of path
            and leaf: those for which it is true.
        channels: as for `regularizer`, for every chosen leaf.
        alpha: as for `regularizer`.
        temporal: as for `regularizer`.
        solver: as for `regularizer`.
        layout: "flax" or "torch", as for `collapse`. It must be given for leaves named "weight",
            whose axes libraries order differently. For all other names None means "flax".
        on_failure: as for `regularizer`.

    Returns:
        A scalar.

    Raises:
        ValueError: if nothing is chosen; if a chosen leaf is not of rank five, is a stack of 2D
            kernels, or is named "weight" and `layout` is None; and as `regularizer` does.

    Source: "3D ConvNets with Optical Flow Based Regularization", section 4.3 (the first layer).

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> params = {f"Conv_{i}": {"kernel": jnp.ones((3, 5, 5, 2, 8))} for i in range(3)}
        >>> penalty = optflow_jax.tree_regularizer(params, where=r"Conv_[01]/kernel$")
        >>> penalty.shape
        ()
    """
    leaves = named_leaves(params)
    if where == "first":
        chosen = [leaves[first_convolution(params, layout=layout)]]
    elif where == "all":
        chosen = list(_convolutions(leaves, layout).values())
    else:
        matches = _matcher(where)
        names = [path for path, leaf in leaves.items() if matches(path, leaf)]
        if not names:
            raise ValueError(f"where: got {where!r}; accepted: a choice from {list(leaves)}")
        for path in names:
            if jnp.ndim(leaves[path]) != 5:
                raise ValueError(
                    f"where: got {where!r}, which chooses {path!r} of shape "
                    f"{jnp.shape(leaves[path])}; accepted: kernels of five axes"
                )
            if _is_stack(path, leaves, layout):
                raise ValueError(
                    f"where: got {where!r}, which chooses {path!r} of shape "
                    f"{jnp.shape(leaves[path])}, a stack of {jnp.shape(leaves[path])[0]} kernels "
                    "of 2D convolutions; accepted: kernels of 3D convolutions"
                )
        _require_layout(names, layout)
        chosen = [leaves[path] for path in names]
    options: dict[str, Any] = {
        "channels": channels,
        "alpha": alpha,
        "temporal": temporal,
        "solver": solver,
        "layout": layout or "flax",
        "on_failure": on_failure,
    }
    first, *others = (regularizer(leaf, **options) for leaf in chosen)
    return sum(others, first)


def _matcher(where: Any) -> Callable[[str, Any], Any]:
    """Convert `where` to a function of path and leaf."""
    if callable(where):
        return where
    accepted = "'first', 'all', a regular expression or a function of path and leaf"
    if not isinstance(where, str):
        raise ValueError(f"where: got {where!r}; accepted: {accepted}")
    try:
        pattern = re.compile(where)
    except re.error as error:
        raise ValueError(f"where: got {where!r} ({error}); accepted: {accepted}") from error
    return lambda path, _: pattern.search(path) is not None


def named_leaves(params: Any) -> dict[str, Any]:
    """The leaves by their paths, without NNX's "/value" at the end of each."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    named = [(jax.tree_util.keystr(p, simple=True, separator="/"), leaf) for p, leaf in leaves]
    return {path.removesuffix("/value"): leaf for path, leaf in named}


def _convolutions(leaves: dict[str, Any], layout: str | None) -> dict[str, Any]:
    """The kernels of 3D convolutions by path; at least one."""
    five = [path for path, leaf in leaves.items() if jnp.ndim(leaf) == 5]
    found = [path for path in five if not _is_stack(path, leaves, layout)]
    if not found:
        stacks = f" but stacks of 2D kernels, {five}" if five else ""
        raise ValueError(
            f"params: got leaves {list(leaves)}, none of which has five axes{stacks}; accepted: a "
            "tree with the kernel of a 3D convolution"
        )
    _require_layout(found, layout)
    return {path: leaves[path] for path in found}


def _require_layout(paths: list[str], layout: str | None) -> None:
    """Raise if a leaf is named "weight" and no layout is given: libraries order it differently."""
    for path in paths:
        if layout is None and _names(path)[-1] == "weight":
            raise ValueError(
                f"layout: got None for the leaf {path!r}; accepted: 'torch' for "
                f"{_SHAPES['torch']}, as PyTorch and Equinox have it, or 'flax' for "
                f"{_SHAPES['flax']}"
            )


def _is_stack(path: str, leaves: dict[str, Any], layout: str | None) -> bool:
    """Whether a leaf of five axes is a stack of 2D kernels.

    Its bias tells: vectorised or scanned layers stack it too, `(layers, out)` instead of `(out,)`.
    Without one, its module's name tells, unless another bias in that module is not stacked.
    """
    *modules, name = _names(path)
    torch = layout == "torch" or (layout is None and name == "weight")
    out = jnp.shape(leaves[path])[0 if torch else -1]
    biases = {
        tuple(_names(other)[:-1]): jnp.shape(leaf)
        for other, leaf in leaves.items()
        if _names(other)[-1] in ("bias", "b", "offset")
    }
    own = biases.get(tuple(modules))
    if own:
        return own[0] != out or any(size != 1 for size in own[1:])
    for depth, module in enumerate(modules, 1):
        flat = (len(x) == 1 and list(m[:depth]) == modules[:depth] for m, x in biases.items())
        if _STACK.search(module) and not any(flat):
            return True
    return False


def _names(path: str) -> list[str]:
    """The names on a path; PyTorch joins them by dots."""
    return re.split(r"[/.]", path)
