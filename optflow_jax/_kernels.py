"""From the kernels of 3D convolutions to a regularizer of a network.

A Flax kernel is `(T, H, W, in, out)`. The paper collapses the input channels linearly, so that
every output channel is one spatiotemporal filter ("3D ConvNets with Optical Flow Based
Regularization", section 3.3); for colour input with the luminance weights, with which its printed
costs come out.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from optflow_jax import _arguments
from optflow_jax._regularizer import cost

# ITU-R BT.601 luma.
_RGB = (0.2989, 0.5870, 0.1140)
_NAMED = {"rgb": _RGB, "bgr": _RGB[::-1]}


def _weights(channels, count: int, dtype):
    """The weight of each input channel, `(count,)`."""
    if isinstance(channels, str):
        if channels == "mean":
            return jnp.full(count, 1 / count, dtype)
        if channels not in _NAMED:
            raise ValueError(
                f"channels must be 'mean', 'rgb', 'bgr' or an array of weights; got {channels!r}"
            )
        if count != 3:
            raise ValueError(
                f"channels {channels!r} needs kernels of 3 input channels; got {count}"
            )
        return jnp.asarray(_NAMED[channels], dtype)
    weights = jnp.asarray(channels)
    if weights.shape != (count,):
        raise ValueError(
            f"channels must have one weight for each of the {count} input channels; "
            f"got shape {weights.shape}"
        )
    return weights.astype(dtype)


def _collapse(kernel, channels):
    """Filters `(out, T, H, W)` in the dtype of the computation."""
    kernel = jnp.asarray(kernel)
    if kernel.ndim != 5:
        raise ValueError(f"kernel must have shape (T, H, W, in, out); got shape {kernel.shape}")
    if not jnp.issubdtype(kernel.dtype, jnp.floating):
        raise ValueError(f"kernel must have a floating dtype; got {kernel.dtype}")
    kernel = kernel.astype(_arguments.compute_dtype(kernel.dtype))
    weights = _weights(channels, kernel.shape[3], kernel.dtype)
    return jnp.einsum("thwio,i->othw", kernel, weights, precision="highest")


def collapse(kernel, channels="mean"):
    """One spatiotemporal filter per output channel.

    Args:
        kernel: the kernel of a 3D convolution as Flax and Haiku lay it out, `(T, H, W, in, out)`.
        channels: how to weigh the input channels: "mean"; "rgb" or "bgr", luminance; or `in`
            weights.

    Returns:
        The filters, `(out, T, H, W)`, in the kernel's dtype.

    Raises:
        ValueError: for a kernel whose rank is not five or whose dtype is not floating, an unknown
            name, "rgb" or "bgr" with other than three input channels, or weights of another number
            than `in`.

    Example:
        >>> collapse(jnp.ones((4, 11, 11, 3, 96)), "rgb").shape
        (96, 4, 11, 11)
    """
    return _collapse(kernel, channels).astype(jnp.asarray(kernel).dtype)


def regularizer(kernel, *, channels="mean", alpha=1.0, temporal=True, solver="auto"):
    """The mean of R over the filters of a kernel.

    The paper's strengths, 1e-2 to 1e5, multiply this.

    Args:
        kernel: `(T, H, W, in, out)`, as for `collapse`.
        channels: as for `collapse`.
        alpha: as for `cost`, broadcastable to `(out,)`.
        temporal: as for `cost`.
        solver: as for `cost`.

    Returns:
        A scalar in the kernel's dtype.

    Raises:
        ValueError: as `collapse` and `cost` do.

    Example:
        >>> def loss_fn(params):
        ...     kernel = params["Conv_0"]["kernel"]
        ...     return data_loss(params) + 1e-2 * regularizer(kernel, channels="rgb")
    """
    filters = _collapse(kernel, channels)
    mean = jnp.mean(cost(filters, alpha=alpha, temporal=temporal, solver=solver))
    return mean.astype(jnp.asarray(kernel).dtype)


def first_convolution(params) -> str:
    """The path of the first 3D convolution's kernel, by the numbers in the names.

    A tree of parameters does not know the order of the layers, only their names. When its kernels
    of rank five are named alike but for numbers (`Conv_0/kernel`, `Conv_1/kernel`, ...), the first
    is the one with the smallest numbers; anything else would be a guess.

    Args:
        params: a tree of parameters.

    Returns:
        The path, keys joined by "/".

    Raises:
        ValueError: if there is no leaf of rank five, or the names do not tell which is first.

    Example:
        >>> first_convolution(variables["params"])
        'Conv_0/kernel'
    """
    paths = [path for path, leaf in _leaves(params) if jnp.ndim(leaf) == 5]
    if not paths:
        raise ValueError(
            f"params has no leaf of rank 5; its leaves are {[p for p, _ in _leaves(params)]}"
        )
    if len({re.sub(r"_?\d+", "", path) for path in paths}) > 1:
        raise ValueError(f"where='first' cannot tell which of {paths} comes first; give a path")
    return min(paths, key=lambda path: [int(number) for number in re.findall(r"\d+", path)])


def tree_regularizer(
    params,
    *,
    where: str | Callable[[str, jax.Array], bool] = "first",
    channels="mean",
    alpha=1.0,
    temporal=True,
    solver="auto",
):
    """The sum of `regularizer` over chosen leaves of a tree of parameters.

    Args:
        params: a tree of parameters whose kernels are `(T, H, W, in, out)`: Flax's or Haiku's.
        where: "first" for the first convolution only (see `first_convolution`); else a regular
            expression that is searched for in the path of a leaf, its keys joined by "/"; or a
            function of path and leaf.
        channels: as for `regularizer`, for every chosen leaf.
        alpha: as for `regularizer`.
        temporal: as for `regularizer`.
        solver: as for `regularizer`.

    Returns:
        A scalar.

    Raises:
        ValueError: if nothing is chosen, or a chosen leaf is not of rank five; and as
            `regularizer` does.

    Example:
        >>> def loss_fn(params):
        ...     penalty = tree_regularizer(params, where=r"Conv_[01]/kernel$")
        ...     return data_loss(params) + 1e-2 * penalty
    """
    if where == "first":
        first = first_convolution(params)
        chosen = [leaf for path, leaf in _leaves(params) if path == first]
    else:
        matches = where if callable(where) else lambda path, _: re.search(where, path) is not None
        chosen = []
        for path, leaf in _leaves(params):
            if matches(path, leaf):
                if jnp.ndim(leaf) != 5:
                    raise ValueError(
                        f"where={where!r} chooses {path!r} of shape {jnp.shape(leaf)}; "
                        "kernels have shape (T, H, W, in, out)"
                    )
                chosen.append(leaf)
        if not chosen:
            paths = [path for path, _ in _leaves(params)]
            raise ValueError(f"where={where!r} chooses none of the leaves {paths}")
    options = {"channels": channels, "alpha": alpha, "temporal": temporal, "solver": solver}
    return sum(regularizer(leaf, **options) for leaf in chosen)


def _leaves(params):
    """The leaves with their paths."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]
