"""The optical flow loss L(W, U, V): brightness constancy plus smoothness.

"3D ConvNets with Optical Flow Based Regularization", equation 3. With `*` elementwise and

    a = W D_x'      b = D_y W      c = W[t + 1] - W[t],  W[T + 1] = 0

    L(W, U, V) = 1/2 ( |a*U + b*V + c|^2 + alpha (U'KU + V'KV) )

K is the sum of D'D over rows, columns and, if `temporal`, frames. The paper asks for the temporal
part in section 3.1 and in the sentence after its S(U, V), and its printed costs contain it. The
differences D are those of `_operators.py`.

Inside the package arrays are `(T, H, W, *batch)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from optflow_jax import _arguments
from optflow_jax._operators import difference, time_difference, time_difference_adjoint
from optflow_jax._sharding import numpy_broadcasting

if TYPE_CHECKING:
    from jax.typing import ArrayLike
    from jaxtyping import Array, Float


def brightness(w):
    """The coefficients of brightness constancy `a*u + b*v + c`.

    Args:
        w: filters, `(T, H, W, *batch)`.

    Returns:
        `a, b, c`, each `(T, H, W, *batch)`.
    """
    return difference(w, 2), difference(w, 1), time_difference(w)


def brightness_adjoint(a, b, c):
    """The adjoint of `brightness`: `a D_x + D_y' b + D_t' c`, borders included."""
    return -difference(a, 2) - difference(b, 1) + time_difference_adjoint(c)


def roughness(u, temporal: bool) -> jax.Array:
    """`u'Ku`, `(*batch,)`, for `u` of shape `(T, H, W, *batch)`."""
    parts = [difference(u, 1), difference(u, 2)] + ([time_difference(u)] if temporal else [])
    first, *others = (jnp.sum(p * p, axis=(0, 1, 2)) for p in parts)
    return sum(others, first)


def envelope(u, v, r):
    """dR/dW at the minimiser (envelope theorem; the paper's equations 5 and 13).

    R(W) = L(W, U*, V*) and dL/dU = dL/dV = 0 there, so only the explicit dependence on W is left.
    The residual r = a*U + b*V + c is linear in W through three linear maps; their adjoints give

        dR/dW = (r*U) D_x + D_y' (r*V) + D_t' r.

    Args:
        u, v, r: the optimal flow and the residual, `(T, H, W, *batch)`.

    Returns:
        The gradient, `(T, H, W, *batch)`.
    """
    return brightness_adjoint(r * u, r * v, r)


def slopes(u, v, r, temporal: bool):
    """dR/dW, `(T, H, W, *batch)`, and dR/dalpha, `(*batch,)`, by the envelope theorem."""
    return envelope(u, v, r), 0.5 * (roughness(u, temporal) + roughness(v, temporal))


def attained(a, b, c, alpha, z, u, v):
    """R from the solution of the system in `_solvers/_problem.py`, `(*batch,)`.

    R is the maximum over z of alpha (c'z - z'Mz / 2) with Mz = alpha z - a*u - b*v, so an error of
    z changes it in second order only.
    """
    half = 0.5 * z * (alpha * z - a * u - b * v)
    total = jnp.sum(z * c - half, axis=(0, 1, 2))
    return alpha.reshape(total.shape) * total


def loss(
    filters: Float[ArrayLike, "*batch T H W"],
    u: Float[ArrayLike, "*batch T H W"],
    v: Float[ArrayLike, "*batch T H W"],
    *,
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
) -> Float[Array, "*batch"]:
    """The optical flow loss L(W, U, V) of equation 3.

    Args:
        filters: W, `(*batch, T, H, W)`: one spatiotemporal filter for each index of the batch.
        u: horizontal flow, of the filters' shape: half the displacement to the right, in pixels
            per frame; see `Flow`.
        v: vertical flow, of the filters' shape: half the displacement downwards.
        alpha: the weight of smoothness, positive and finite, broadcastable to `batch`; may be
            traced.
        temporal: whether the flow is smooth in time as well as in space.

    Returns:
        The loss, `(*batch,)`, in the filters' dtype.

    Raises:
        ValueError: if an array has fewer than three axes or a dtype that is not floating, if the
            shapes differ, or if `alpha` is not positive and finite or does not broadcast to
            `batch`.

    Source: "3D ConvNets with Optical Flow Based Regularization", equation 3.

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> w = jnp.ones((4, 5, 7, 7))
        >>> optflow_jax.loss(w, jnp.zeros_like(w), jnp.zeros_like(w)).shape
        (4,)
    """
    temporal = _arguments.temporal_flag(temporal)
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    u, v = (_arguments.like("filters", filters, name, x) for name, x in (("u", u), ("v", v)))
    return restore(_loss(w, u, v, alpha, temporal))


@numpy_broadcasting
def _loss(w, u, v, alpha, temporal: bool) -> jax.Array:
    """L, `(*batch,)`."""
    a, b, c = brightness(w)
    r = a * u + b * v + c
    energy = roughness(u, temporal) + roughness(v, temporal)
    return 0.5 * (jnp.sum(r * r, axis=(0, 1, 2)) + alpha * energy)
