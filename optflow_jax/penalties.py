"""The usual penalties on weights and images, with their proximal operators.

They are pure functions of arrays: L1, L2, elastic net, Huber, group lasso and total variation. In a
loss:

    penalty = penalties.tree_penalty(penalties.l1, params, where="kernel$")
    loss = data_loss + 1e-4 * penalty

The proximal operator of step * f is

    prox(v) = argmin_x  1/2 |x - v|^2 + step f(x)

Proximal gradient and primal-dual methods need it where f has no derivative.

All functions compute in float32, or in float64 for a float64 argument, and return the dtype of
their argument. At a kink the derivative of a penalty is the subgradient 0, so gradients are finite
everywhere. NaN in the argument gives NaN.
"""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp

from optflow_jax._kernels import first_convolution, named_leaves
from optflow_jax._penalties._arrays import at_least_float32
from optflow_jax._penalties._elementwise import (
    elastic_net,
    huber,
    l1,
    l2,
    prox_elastic_net,
    prox_huber,
    prox_l1,
    prox_l2,
)
from optflow_jax._penalties._group_lasso import group_lasso, prox_group_lasso
from optflow_jax._penalties._total_variation import prox_total_variation, total_variation

__all__ = [
    "elastic_net",
    "group_lasso",
    "huber",
    "l1",
    "l2",
    "prox_elastic_net",
    "prox_group_lasso",
    "prox_huber",
    "prox_l1",
    "prox_l2",
    "prox_total_variation",
    "total_variation",
    "tree_penalty",
]


def tree_penalty(
    penalty: Callable[[jax.Array], jax.Array],
    params,
    *,
    where: str | Callable[[str, jax.Array], bool] = r"kernel$",
):
    """The sum of a penalty over chosen leaves of a tree of parameters.

    Args:
        penalty: a function of an array, such as one of this module or `optflow_jax.regularizer`.
            If it returns an array, its elements are summed.
        params: a tree of parameters.
        where: a regular expression, searched for in the path of a leaf (its keys joined by "/",
            without NNX's ending "/value"); or a function of path and leaf; or "first" for the first
            3D convolution only (see `optflow_jax.first_convolution`). The default chooses leaves
            named kernel, as in Flax, and leaves out biases and the scales of normalisations.

    Returns:
        A scalar, in float32 or wider.

    Raises:
        ValueError: if nothing is chosen; and as `penalty` does.

    Example:
        >>> import jax.numpy as jnp
        >>> from optflow_jax.penalties import group_lasso, l1, tree_penalty
        >>> params = {"Dense_0": {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([9.0])}}
        >>> tree_penalty(l1, params)
        Array(3., dtype=float32)
        >>> tree_penalty(lambda w: group_lasso(w, axis=0), params, where="Dense_[01]/kernel$")
        Array(3., dtype=float32)
    """
    leaves = named_leaves(params)
    if where == "first":
        chosen = [leaves[first_convolution(params)]]
    elif callable(where):
        chosen = [leaf for path, leaf in leaves.items() if where(path, leaf)]
    else:
        chosen = [leaf for path, leaf in leaves.items() if re.search(where, path)]
    if not chosen:
        raise ValueError(
            f"where: got {where!r}; accepted: what chooses one or more of {list(leaves)}"
        )
    # Widened before the penalty sums it: a penalty has the dtype of its argument.
    values = [jnp.sum(_widened(penalty(_widened(leaf)))) for leaf in chosen]
    dtype = jnp.float64 if any(x.dtype == jnp.float64 for x in values) else jnp.float32
    return sum(value.astype(dtype) for value in values)


def _widened(x):
    x = jnp.asarray(x)
    return x.astype(at_least_float32(x.dtype)) if jnp.issubdtype(x.dtype, jnp.floating) else x
