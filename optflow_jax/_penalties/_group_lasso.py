"""The group lasso and its proximal operator."""

import jax.numpy as jnp

from optflow_jax._penalties._arrays import Axes, checked_step, norm, normalised_axes, widen


def group_lasso(x, axis: Axes):
    """The sum of the norms of groups: a loss with it has minimisers with whole groups of zeros.

        f(x) = sum_g |x_g|_2

    Args:
        x: any shape, floating.
        axis: the axes within a group; each index of the other axes is a group. With
            ``axis=(0, 1, 2)`` each output filter of a kernel (height, width, in, out) is a group.

    Returns:
        A scalar in x's dtype. The derivative with respect to a group that is zero is 0.

    Raises:
        ValueError: if x is not floating or an axis does not exist.

    Source:
        Yuan and Lin, "Model selection and estimation in regression with grouped variables" (2006);
        they weight a group by the root of its size, which here is the same for all groups.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import group_lasso
        >>> group_lasso(jnp.array([[3.0, 4.0], [0.0, 0.0]]), axis=1)
        Array(5., dtype=float32)
    """
    x, dtype = widen("x", x)
    return jnp.sum(norm(x, normalised_axes("axis", axis, x))).astype(dtype)


def prox_group_lasso(v, step, axis: Axes):
    """The proximal operator of step * `group_lasso`: soft thresholding of norms.

        prox(v)_g = v_g max(1 - step / |v_g|, 0),   0 where v_g = 0

    Args:
        v: any shape, floating.
        step: not negative, a scalar; may be traced.
        axis: the axes within a group.

    Returns:
        An array like v.

    Raises:
        ValueError: if v is not floating, step is negative or an axis does not exist.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import prox_group_lasso
        >>> prox_group_lasso(jnp.array([[3.0, 4.0], [0.3, 0.4]]), 1.0, axis=1)
        Array([[2.4, 3.2],
               [0. , 0. ]], dtype=float32)
    """
    v, dtype = widen("v", v)
    norms = norm(v, normalised_axes("axis", axis, v), keepdims=True)
    zero = norms == 0
    share = jnp.maximum(1 - checked_step(step) / jnp.where(zero, 1, norms), 0)
    return (v * jnp.where(zero, 0, share)).astype(dtype)
