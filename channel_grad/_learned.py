"""A metric along the output channels that is learned from the gradients.

The metrics of the paper are fixed: each scales the mean over the channels, or smooth directions.
Here the second moment of the gradients says which directions are scaled, and by how much:

    C <- decay C + (1 - decay) F'F            F: the gradient, one row for each line along the axis
    P  = (n C / tr(C) + damping I)^(-power)   again every `every` steps
    g  = F P |F| / |F P|                      the norm of the gradient is kept

This is Shampoo (Gupta et al. 2018, arXiv 1802.09568) on one side of the kernel, with a moving
average in place of its sum. SOAP (Vyas et al. 2024, arXiv 2409.11321) and ASGO (An et al. 2025,
arXiv 2503.20762, one-sided as well) are of the same family. With decay = 0, power = 1/2 and
damping -> 0, F P is F (F'F)^(-1/2) but for its norm, the orthogonalized gradient that Muon (Jordan
et al. 2024) approximates.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec, auto_axes

from channel_grad._axes import AxisSpec
from channel_grad._describe import warn_if_left_out
from channel_grad._layouts import flax_layout
from channel_grad._metrics._base import at_least_float32, check_number, flatten_axes
from channel_grad._sharding import explicit_sharding

# C and P of a longer axis take more than half a gigabyte each in float32.
LONGEST = 8192


class LearnedMetricState(NamedTuple):
    """State of `scale_by_learned_metric`; n is the length of a leaf's axis.

    Attributes:
        count: steps so far, int32.
        second_moment: C of each selected leaf, (n, n); an empty node for each other leaf.
        root: P of each selected leaf, (n, n); an empty node for each other leaf.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> state = channel_grad.scale_by_learned_metric().init({"kernel": jnp.ones((3, 3, 2, 4))})
        >>> isinstance(state, channel_grad.LearnedMetricState), state.root["kernel"].shape
        (True, (4, 4))
    """

    count: Any
    second_moment: Any
    root: Any


def scale_by_learned_metric(
    power: optax.ScalarOrSchedule = 0.5,
    decay: optax.ScalarOrSchedule = 0.95,
    damping: optax.ScalarOrSchedule = 0.01,
    every: int = 20,
    axes: Any = flax_layout,
) -> optax.GradientTransformationExtraArgs:
    """Gradients with respect to a metric that is learned along an axis: one-sided Shampoo.

    With F the gradient of a kernel, one row of length n for each line along the axis, and C the
    moving average of F'F, the result is ``F P``, rescaled to the norm of F, where
    ``P = (n C / tr(C) + damping I)^(-power)`` is computed again every few steps. The metric of the
    paper, ``I + lam J / n``, is one fixed direction of such a P.

    Args:
        power: of the inverse root, >= 0; 1/2 makes all directions alike, 1/4 is Shampoo's, 0 leaves
            the gradient as it is. Also a schedule, a function of the step count.
        decay: of the moving average, from 0 (the present gradient alone) to below 1; also a
            schedule.
        damping: > 0, what is added to the eigenvalues of C, whose mean is scaled to 1; also a
            schedule.
        every: steps from one root to the next. The first step computes one.
        axes: which axis of which leaf, see `scale_by_metric`. The axis has at most 8192 entries.

    Returns:
        A transformation whose state holds C and P of each selected leaf, 2 n^2 numbers: float64 for
        float64 parameters, else float32. The result has the gradient's dtype.

    Raises:
        ValueError: on arguments that are not accepted; from `init`, where an axis is too long or
            missing; from `update`, where a selected gradient does not hold real floats.

    Example:
        >>> import channel_grad, jax.numpy as jnp, optax
        >>> optimizer = optax.chain(channel_grad.scale_by_learned_metric(), optax.sgd(0.1))
        >>> params = {"kernel": jnp.ones((3, 3, 2, 8))}
        >>> state = optimizer.init(params)
        >>> state[0].second_moment["kernel"].shape
        (8, 8)
    """
    spec = AxisSpec(axes)
    numbers = {"power": power, "decay": decay, "damping": damping}
    for name, value in numbers.items():
        if not callable(value):
            check_number(name, value, positive=name == "damping")
    if not callable(decay) and not isinstance(decay, Tracer) and not float(decay) < 1:
        raise ValueError(f"decay: got {decay!r}; accepted: a number >= 0 and < 1, or a schedule")
    check_number("every", every, positive=True)
    if not isinstance(every, Tracer) and float(every) != int(every):
        raise ValueError(f"every: got {every!r}; accepted: an integer >= 1")

    def init(params: optax.Params) -> LearnedMetricState:
        warn_if_left_out(spec, params)
        axes_of = spec.resolve(params)

        def start(path: tuple[Any, ...], leaf: Any, scale: float) -> Any:
            leaf_axes = axes_of[path]
            if leaf_axes is None:
                return optax.MaskedNode()
            n = math.prod(leaf.shape[axis] for axis in leaf_axes)
            if n > LONGEST:
                raise ValueError(
                    f"axes: got an axis of {n} entries at the leaf {jtu.keystr(path)}; accepted: "
                    f"at most {LONGEST}, because the state holds matrices of {n} x {n} numbers"
                )
            return scale * jnp.eye(n, dtype=_wide(leaf.dtype))

        def tree(scale: float) -> Any:
            return jtu.tree_map_with_path(lambda path, leaf: start(path, leaf, scale), params)

        return LearnedMetricState(jnp.zeros([], jnp.int32), tree(0.0), tree(1.0))

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, LearnedMetricState]:
        del params, extra_args
        now = {name: f(state.count) if callable(f) else f for name, f in numbers.items()}
        now = {name: at_least_float32(value) for name, value in now.items()}
        axes_of = spec.resolve(updates)
        leaves, structure = jtu.tree_flatten_with_path(updates)
        chosen = []
        for path, f in leaves:
            leaf_axes = axes_of[path]
            if leaf_axes is None:
                continue
            if not jnp.issubdtype(jnp.result_type(f), jnp.floating):
                raise ValueError(
                    f"updates: got dtype {jnp.result_type(f)} at the leaf {jtu.keystr(path)}; "
                    "accepted: real floats, or axes=None for this leaf"
                )
            chosen.append((path, f, leaf_axes))
        moments, places = jtu.tree_flatten(state.second_moment)
        moments = [
            _second_moment(f, leaf_axes, moment, now["decay"])
            for (_, f, leaf_axes), moment in zip(chosen, moments, strict=True)
        ]
        # The eigenvectors are what costs: none are computed in the steps between.
        roots = jax.lax.cond(
            jnp.mod(state.count, jnp.asarray(every, jnp.int32)) == 0,
            lambda moments, _: [_root(c, now["power"], now["damping"]) for c in moments],
            lambda _, roots: roots,
            moments,
            jtu.tree_leaves(state.root),
        )
        changed = {
            path: _apply(f, leaf_axes, root)
            for (path, f, leaf_axes), root in zip(chosen, roots, strict=True)
        }
        return (
            structure.unflatten([changed.get(path, f) for path, f in leaves]),
            LearnedMetricState(
                optax.safe_increment(state.count),
                places.unflatten(moments),
                places.unflatten(roots),
            ),
        )

    return optax.GradientTransformationExtraArgs(init, update)


def _wide(dtype: Any) -> Any:
    """float64 for float64 where JAX has it, else float32."""
    return jnp.result_type(float) if dtype == jnp.float64 else jnp.float32


def _second_moment(f: jax.Array, axes: tuple[int, ...], moment: jax.Array, decay: Any) -> jax.Array:
    """The moving average of F'F after one more gradient."""

    def average(f: jax.Array, moment: jax.Array, decay: jax.Array) -> jax.Array:
        lines = flatten_axes(f.astype(moment.dtype), axes)
        new = jnp.tensordot(lines, lines, axes=(list(range(lines.ndim - 1)),) * 2)
        return decay * moment + (1 - decay) * new

    return _automatic(average, f, None, f, moment, jnp.asarray(decay, moment.dtype))


def _root(moment: jax.Array, power: Any, damping: Any) -> jax.Array:
    """``(n C / tr(C) + damping I)^(-power)``; the identity where C is 0."""
    n, dtype = len(moment), moment.dtype
    mean = jnp.trace(moment) / n
    values, vectors = jnp.linalg.eigh(moment / jnp.where(mean > 0, mean, 1))
    # Rounding makes eigenvalues of a singular C negative.
    values = jnp.maximum(values, 0) + jnp.asarray(damping, dtype)
    values = values ** -jnp.asarray(power, dtype)
    return jnp.where(mean > 0, (vectors * values[None, :]) @ vectors.T, jnp.eye(n, dtype=dtype))


def _apply(f: jax.Array, axes: tuple[int, ...], root: jax.Array) -> jax.Array:
    """F P, with the norm of F, in the layout and dtype of f."""

    def apply(f: jax.Array, root: jax.Array) -> jax.Array:
        wide = f.astype(root.dtype)
        # Squares of small gradients underflow, those of large ones overflow.
        largest = jnp.max(jnp.abs(wide), initial=0)
        wide = wide / jnp.where(largest > 0, largest, 1)
        last = tuple(range(-len(axes), 0))
        lines = flatten_axes(wide, axes)
        product = jnp.matmul(lines, root)
        length = jnp.linalg.norm(product.ravel())
        scale = jnp.linalg.norm(lines.ravel()) / jnp.where(length > 0, length, 1) * largest
        moved = jnp.moveaxis(wide, axes, last).shape
        return jnp.moveaxis((scale * product).reshape(moved), last, axes).astype(f.dtype)

    return _automatic(apply, f, jax.typeof(f).sharding, f, root)


def _automatic(function: Any, f: jax.Array, out: Any, *arrays: jax.Array) -> jax.Array:
    """``function(*arrays)``; with Explicit axes, computed as if they were Auto.

    The result has the sharding ``out``, or lies on every device where that is None.
    """
    sharding = explicit_sharding(f)
    if sharding is None:
        return function(*arrays)
    out = out or NamedSharding(sharding.mesh, PartitionSpec())
    apply: Any = auto_axes(function, out_sharding=out)
    return apply(*arrays)
