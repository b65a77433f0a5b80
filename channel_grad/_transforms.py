"""The metrics as optax transformations: they replace the gradient of the loss by that of a metric.

They belong in front of a chain, before weight decay and before any moments are taken:

    optax.chain(
        channel_grad.scale_by_sobolev(),
        optax.add_decayed_weights(5e-4),
        optax.sgd(0.1, momentum=0.9),
    )

None of them has a state. Their arithmetic is float32 (float64 for float64 gradients), their output
has the gradient's dtype, and lam, sigma and l2_weight may be traced.
"""

from typing import Any

import jax
import jax.tree_util as jtu
import optax
from jax.typing import ArrayLike

from channel_grad._axes import AxisSpec, output_axes
from channel_grad._metrics import LaplacianSmoothing, Metric, ReweightedL2, Sobolev


def scale_by_metric(
    metric: Metric, axes: Any = output_axes, method: str = "auto"
) -> optax.GradientTransformationExtraArgs:
    """Replace each gradient by the gradient with respect to a metric along an axis of its own.

    Args:
        metric: the metric.
        axes: which axis of which leaf, see `AxisSpec`: a preset, a function ``(path, leaf) ->
            axis``, a tree of axes. The default: output channels of Flax's convolution kernels,
            nothing else.
        method: the algorithm, see `Metric.gradient`.

    Returns:
        A transformation without state. None, empty nodes and leaves whose axis is None pass
        through as they are.

    Raises:
        ValueError: from `init` and `update`, where the spec names an axis that a leaf does not
        have.

    Example:
        >>> optimizer = optax.chain(scale_by_metric(Sobolev(lam=1.0)), optax.sgd(0.1))
    """
    if not isinstance(metric, Metric):
        raise ValueError(f"metric={metric!r} came; accepted: a Metric, such as Sobolev()")
    spec = AxisSpec(axes)

    def init(params: optax.Params) -> optax.EmptyState:
        spec.resolve(params)
        return optax.EmptyState()

    def update(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args
        axes_of = spec.resolve(updates)

        def gradient(path: tuple[Any, ...], f: jax.Array) -> jax.Array:
            return f if axes_of[path] is None else metric.gradient(f, axes_of[path], method)

        return jtu.tree_map_with_path(gradient, updates), state

    return optax.GradientTransformationExtraArgs(init, update)


def scale_by_reweighted_l2(
    lam: ArrayLike = 1.0, form: str = "code", axes: Any = output_axes
) -> optax.GradientTransformationExtraArgs:
    """Gradients with respect to `ReweightedL2`: ``f + lam * mean(f)`` in the form "code".

    Args:
        lam: weight of the mean; also a schedule, through `optax.inject_hyperparams`.
        form: "code" (figure 3 of the paper) or "equation" (eqs. 4 and 8).
        axes: see `scale_by_metric`.

    Raises:
        ValueError: see `ReweightedL2` and `scale_by_metric`.

    Example:
        >>> optimizer = optax.chain(scale_by_reweighted_l2(lam=1.0), optax.sgd(0.1))
    """
    return scale_by_metric(ReweightedL2(lam, form), axes)


def scale_by_sobolev(
    lam: ArrayLike = 1.0,
    l2_weight: ArrayLike = 1.0,
    discretization: str = "exact",
    axes: Any = output_axes,
) -> optax.GradientTransformationExtraArgs:
    """Gradients with respect to `Sobolev`: ``l2_weight * f + lam * h``.

    Args:
        lam, l2_weight: the weights of the two parts; also schedules, through
            `optax.inject_hyperparams`.
        discretization: "exact", "riemann" (eq. 9 of the paper) or "listing" (figure 12).
        axes: see `scale_by_metric`.

    Raises:
        ValueError: see `Sobolev` and `scale_by_metric`.

    Example:
        >>> schedule = optax.linear_schedule(2.0, 0.5, transition_steps=1000)
        >>> optimizer = optax.chain(
        ...     optax.inject_hyperparams(scale_by_sobolev)(lam=schedule), optax.sgd(0.1)
        ... )
    """
    return scale_by_metric(Sobolev(lam, l2_weight, discretization), axes)


def scale_by_laplacian_smoothing(
    sigma: ArrayLike = 1.0, order: int = 1, axes: Any = output_axes
) -> optax.GradientTransformationExtraArgs:
    """Gradients smoothed by `LaplacianSmoothing`; with ``axes=raster``, the method of Osher et al.

    Args:
        sigma: the strength; also a schedule, through `optax.inject_hyperparams`.
        order: the power of the Laplacian.
        axes: see `scale_by_metric`.

    Raises:
        ValueError: see `LaplacianSmoothing` and `scale_by_metric`.

    Example:
        >>> optimizer = optax.chain(scale_by_laplacian_smoothing(axes=raster), optax.sgd(0.1))
    """
    return scale_by_metric(LaplacianSmoothing(sigma, order), axes)
