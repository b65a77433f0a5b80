"""Sums over elements, and their proximal operators: L1, L2, elastic net and Huber."""

import jax.numpy as jnp

from optflow_jax._penalties._arrays import Axes, checked, checked_step, normalised_axes, widen


def l1(x, axis: Axes = None):
    """The sum of absolute values: a loss with it has minimisers with many zeros.

        f(x) = sum_i |x_i|

    Args:
        x: any shape, floating.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype. The derivative at 0 is 0.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Tibshirani, "Regression shrinkage and selection via the lasso" (1996).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import l1
        >>> l1(jnp.array([1.0, -2.0, 0.0]))
        Array(3., dtype=float32)
    """
    x, dtype = widen("x", x)
    return jnp.sum(_absolute(x), axis=normalised_axes("axis", axis, x)).astype(dtype)


def l2(x, axis: Axes = None):
    """The sum of squares, without a factor 1/2: it prefers weights that are spread evenly.

        f(x) = sum_i x_i^2

    Args:
        x: any shape, floating.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Hoerl and Kennard, "Ridge regression" (1970).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import l2
        >>> l2(jnp.array([1.0, 0.0, 0.0, 0.0])), l2(jnp.array([0.25, 0.25, 0.25, 0.25]))
        (Array(1., dtype=float32), Array(0.25, dtype=float32))
    """
    x, dtype = widen("x", x)
    return jnp.sum(x * x, axis=normalised_axes("axis", axis, x)).astype(dtype)


def elastic_net(x, l1_ratio=0.5, axis: Axes = None):
    """A mixture of `l1` and `l2`: sparse, and strictly convex.

        f(x) = l1_ratio sum_i |x_i| + (1 - l1_ratio) sum_i x_i^2

    (scikit-learn halves the second term.)

    Args:
        x: any shape, floating.
        l1_ratio: between 0 (`l2`) and 1 (`l1`); may be traced.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype. The derivative at 0 is 0.

    Raises:
        ValueError: if x is not floating, an axis does not exist or l1_ratio is out of its range.

    Source:
        Zou and Hastie, "Regularization and variable selection via the elastic net" (2005).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import elastic_net
        >>> elastic_net(jnp.array([1.0, -2.0]), l1_ratio=0.5)  # (3 + 5) / 2
        Array(4., dtype=float32)
    """
    x, dtype = widen("x", x)
    ratio = checked("l1_ratio", l1_ratio, lambda r: (r >= 0) & (r <= 1), "0 to 1")
    values = ratio * _absolute(x) + (1 - ratio) * x * x
    return jnp.sum(values, axis=normalised_axes("axis", axis, x)).astype(dtype)


def huber(x, delta=1.0, axis: Axes = None):
    """Quadratic near zero and linear beyond: an L1 penalty with a derivative everywhere.

        f(x) = sum_i  1/2 x_i^2                     where |x_i| <= delta
                      delta (|x_i| - delta / 2)     elsewhere

    Args:
        x: any shape, floating.
        delta: the |x_i| from which f is linear, positive; may be traced.
        axis: the axes that are summed. Default: all of them; the others are a batch.

    Returns:
        A scalar, or an array of the batch's shape, in x's dtype.

    Raises:
        ValueError: if x is not floating, an axis does not exist or delta is not positive.

    Source:
        Huber, "Robust estimation of a location parameter" (1964).

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import huber
        >>> huber(jnp.array([0.5, -3.0]), delta=1.0)  # 0.125 + 2.5
        Array(2.625, dtype=float32)
    """
    x, dtype = widen("x", x)
    delta = checked("delta", delta, lambda d: d > 0, "positive")
    size = jnp.abs(x)
    # Clip before squaring: a large x could overflow, and its derivative be NaN.
    square = 0.5 * jnp.minimum(size, delta) ** 2
    values = square + delta * jnp.maximum(size - delta, 0)
    return jnp.sum(values, axis=normalised_axes("axis", axis, x)).astype(dtype)


def prox_l1(v, step):
    """The proximal operator of step * `l1`: soft thresholding.

        prox(v)_i = sign(v_i) max(|v_i| - step, 0)

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating or step is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_l1
        >>> prox_l1(jnp.array([3.0, 0.5, -2.0]), 1.0)
        Array([ 2.,  0., -1.], dtype=float32)
    """
    v, dtype = widen("v", v)
    return _soft(v, checked_step(step)).astype(dtype)


def prox_l2(v, step):
    """The proximal operator of step * `l2`: shrinking.

        prox(v) = v / (1 + 2 step)

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating or step is negative.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_l2
        >>> prox_l2(jnp.array([3.0, -6.0]), 1.0)
        Array([ 1., -2.], dtype=float32)
    """
    v, dtype = widen("v", v)
    return (v / (1 + 2 * checked_step(step))).astype(dtype)


def prox_elastic_net(v, step, l1_ratio=0.5):
    """The proximal operator of step * `elastic_net`: soft thresholding, then shrinking.

        prox(v)_i = sign(v_i) max(|v_i| - step l1_ratio, 0) / (1 + 2 step (1 - l1_ratio))

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.
        l1_ratio: between 0 and 1; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or l1_ratio is out of its range.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_elastic_net
        >>> prox_elastic_net(jnp.array([4.5, 0.25]), 1.0, l1_ratio=0.5)
        Array([2., 0.], dtype=float32)
    """
    v, dtype = widen("v", v)
    step = checked_step(step)
    ratio = checked("l1_ratio", l1_ratio, lambda r: (r >= 0) & (r <= 1), "0 to 1")
    return (_soft(v, step * ratio) / (1 + 2 * step * (1 - ratio))).astype(dtype)


def prox_huber(v, step, delta=1.0):
    """The proximal operator of step * `huber`.

        prox(v)_i = v_i / (1 + step)              where |v_i| <= delta (1 + step)
                    v_i - step delta sign(v_i)    elsewhere

    Args:
        v: any shape, floating.
        step: not negative, a scalar or broadcastable to v; may be traced.
        delta: positive; may be traced.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or delta is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_huber
        >>> prox_huber(jnp.array([1.0, 5.0]), 1.0, delta=1.0)
        Array([0.5, 4. ], dtype=float32)
    """
    v, dtype = widen("v", v)
    step, delta = checked_step(step), checked("delta", delta, lambda d: d > 0, "positive")
    near = jnp.abs(v) <= delta * (1 + step)
    return jnp.where(near, v / (1 + step), v - step * delta * jnp.sign(v)).astype(dtype)


def _absolute(x):
    """|x| with derivative 0 at 0, where JAX takes 1 for `jnp.abs`."""
    return x * jnp.sign(x)


def _soft(v, threshold):
    return jnp.sign(v) * jnp.maximum(jnp.abs(v) - threshold, 0)
