"""The metrics as optax transformations: they replace the gradient of the loss by that of a metric.

They belong in front of a chain, before weight decay and before any moments are taken:

    optax.chain(
        channel_grad.scale_by_sobolev(),
        optax.add_decayed_weights(5e-4),
        optax.sgd(0.1, momentum=0.9),
    )

None of them has a state, but for the step count of schedules. Their arithmetic is float32 (float64
for float64 gradients), their output has the gradient's dtype, and lam, sigma and l2_weight may be
traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import optax

from channel_grad._axes import AxisSpec
from channel_grad._describe import warn_if_left_out
from channel_grad._layouts import flax_layout
from channel_grad._metrics import LaplacianSmoothing, Metric, ReweightedL2, Sobolev


def scale_by_metric(
    metric: Metric, axes: Any = flax_layout, method: str = "auto"
) -> optax.GradientTransformationExtraArgs:
    """Replace each gradient by the gradient with respect to a metric along an axis of its own.

    Args:
        metric: the metric.
        axes: which axis of which leaf, see `AxisSpec`: a preset, a layout, a function ``(path,
            leaf) -> axis``, a tree of axes. The default: output channels of Flax's convolution
            kernels, nothing else. ``print(channel_grad.describe(params, axes))`` shows what a spec
            does.
        method: the algorithm, see `Metric.gradient`.

    Returns:
        A transformation without state. None, empty nodes and leaves whose axis is None pass
        through as they are. Its `init` gives a UserWarning if the spec selects no leaf.

    Raises:
        ValueError: on arguments that are not accepted; from `init` and `update`, where the spec
            names an axis that a leaf does not have; from `update`, where a gradient selected holds
            integers.

    Example:
        >>> import channel_grad, optax
        >>> metric = channel_grad.Sobolev(lam=1.0)
        >>> optimizer = optax.chain(channel_grad.scale_by_metric(metric), optax.sgd(0.1))
    """
    if not isinstance(metric, Metric):
        raise ValueError(f"metric: got {metric!r}; accepted: a Metric, such as Sobolev()")
    return _transformation(metric, {}, axes, method)


def scale_by_reweighted_l2(
    lam: optax.ScalarOrSchedule = 1.0,
    form: str = "code",
    axes: Any = flax_layout,
    method: str = "auto",
) -> optax.GradientTransformationExtraArgs:
    """Gradients with respect to `ReweightedL2`: ``f + lam * mean(f)`` in the form "code".

    Args:
        lam: weight of the mean, > -1 (the form "equation": > 0); also a schedule, a function of the
            step count.
        form: "code" (figure 3 of the paper) or "equation" (eqs. 4 and 8).
        axes, method: see `scale_by_metric`.

    Raises:
        ValueError: see `ReweightedL2` and `scale_by_metric`.

    Example:
        >>> import channel_grad, optax
        >>> optimizer = optax.chain(channel_grad.scale_by_reweighted_l2(lam=1.0), optax.sgd(0.1))
    """
    return _scheduled(ReweightedL2, {"lam": lam}, {"form": form}, axes, method)


def scale_by_sobolev(
    lam: optax.ScalarOrSchedule = 1.0,
    l2_weight: optax.ScalarOrSchedule = 1.0,
    discretization: str = "exact",
    axes: Any = flax_layout,
    method: str = "auto",
) -> optax.GradientTransformationExtraArgs:
    """Gradients with respect to `Sobolev`: ``l2_weight * f + lam * h``.

    Args:
        lam, l2_weight: the weights of the two parts; also schedules, functions of the step count.
        discretization: "exact", "riemann" (eq. 9 of the paper) or "listing" (figure 12).
        axes, method: see `scale_by_metric`.

    Raises:
        ValueError: see `Sobolev` and `scale_by_metric`.

    Example:
        >>> import channel_grad, optax
        >>> schedule = optax.linear_schedule(2.0, 0.5, transition_steps=1000)
        >>> optimizer = optax.chain(channel_grad.scale_by_sobolev(lam=schedule), optax.sgd(0.1))
    """
    numbers = {"lam": lam, "l2_weight": l2_weight}
    return _scheduled(Sobolev, numbers, {"discretization": discretization}, axes, method)


def scale_by_laplacian_smoothing(
    sigma: optax.ScalarOrSchedule = 1.0,
    order: int = 1,
    axes: Any = flax_layout,
    method: str = "auto",
) -> optax.GradientTransformationExtraArgs:
    """Gradients smoothed by `LaplacianSmoothing`; with ``axes=raster``, the method of Osher et al.

    Args:
        sigma: the strength; also a schedule, a function of the step count.
        order: the power of the Laplacian.
        axes, method: see `scale_by_metric`; "prefix" is not for this metric.

    Raises:
        ValueError: see `LaplacianSmoothing` and `scale_by_metric`.

    Example:
        >>> import channel_grad, optax
        >>> smoothing = channel_grad.scale_by_laplacian_smoothing(axes=channel_grad.raster)
        >>> optimizer = optax.chain(smoothing, optax.sgd(0.1))
    """
    return _scheduled(LaplacianSmoothing, {"sigma": sigma}, {"order": order}, axes, method)


def _scheduled(
    metric: type[Metric],
    numbers: dict[str, Any],
    choices: dict[str, Any],
    axes: Any,
    method: str,
) -> optax.GradientTransformationExtraArgs:
    """A transformation by a metric of which some numbers are schedules."""
    schedules = {name: value for name, value in numbers.items() if callable(value)}
    fixed = {name: value for name, value in numbers.items() if name not in schedules}
    # The defaults of the metric stand in for the schedules until the first step.
    return _transformation(metric(**fixed, **choices), schedules, axes, method)


def _transformation(
    metric: Metric, schedules: Mapping[str, Callable[[Any], Any]], axes: Any, method: str
) -> optax.GradientTransformationExtraArgs:
    spec = AxisSpec(axes)
    metric.check_method(method)

    def init(params: optax.Params) -> optax.EmptyState | optax.ScaleByScheduleState:
        warn_if_left_out(spec, params)
        if schedules:
            return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, Any]:
        del params, extra_args
        now = metric
        if schedules:
            now = metric.with_numbers(**{name: f(state.count) for name, f in schedules.items()})
            state = optax.ScaleByScheduleState(count=optax.safe_increment(state.count))
        axes_of = spec.resolve(updates)

        def gradient(path: tuple[Any, ...], f: jax.Array) -> jax.Array:
            leaf_axes = axes_of[path]
            if leaf_axes is None:
                return f
            if not jnp.issubdtype(jnp.result_type(f), jnp.inexact):
                raise ValueError(
                    f"updates: got dtype {jnp.result_type(f)} at the leaf {jtu.keystr(path)}; "
                    "accepted: floats or complex numbers, or axes=None for this leaf"
                )
            return now.gradient(f, leaf_axes, method)

        return jtu.tree_map_with_path(gradient, updates), state

    return optax.GradientTransformationExtraArgs(init, update)
