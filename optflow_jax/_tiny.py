"""Cost and gradient of the smallest filters in float64, because their float32 terms cancel.

Two cancellations were measured inside the range that `cost` documents, both in systems with few
pixels in a parity class of a frame (see `_operators.py`):

- One pixel per class and one frame: where alpha is small, R depends only on ratios of pixels, so
  its gradient vanishes for constant filters. For filters of 2 x 2 pixels that are constant to 1e-4
  the terms of the gradient are 1e4 times its norm.
- Two pixels per class with a null vector of K (1 x 3 pixels without the temporal term): a uniform
  flow removes all of c at no cost, except for the sum of two numbers, which may cancel.

No solver can help, because u, v and r are already rounded to float32. Solving such small filters
again costs next to nothing, so it is always done, in float64, whatever `jax_enable_x64` is.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from optflow_jax._implicit import each_device, solve_here
from optflow_jax._objective import attained, brightness, slopes
from optflow_jax._sharding import alike

# The most pixels in the largest parity class of a frame for which float64 is used. Errors above
# 1e-5 were seen for 1 and 2 pixels (frames of 2 x 2 and 1 x 3), and 9e-6 for 4 (3 x 3).
_UP_TO = 4


def is_tiny(w, temporal: bool) -> bool:
    """Whether filters `(T, H, W, *batch)` are solved in float64."""
    frames, height, width = w.shape[:3]
    pixels = -(-height // 2) * -(-width // 2)
    few = pixels <= _UP_TO and (frames == 1 or not temporal)
    return few and w.size > 0 and w.dtype != jnp.float64


def corrected(w, alpha, temporal: bool, converged, rounded):
    """The cost and its slopes without the rounding of float32.

    Args:
        w: filters, `(T, H, W, *batch)`.
        alpha: `(*batch,)`.
        temporal: whether the flow is smooth in time.
        converged: which filters to correct, `(*batch,)` bool.
        rounded: the cost, dR/dW and dR/dalpha in the dtype of `w`, or the first of them.

    Returns:
        `rounded`, corrected. The correction counts as a constant, so the derivatives of the result
        are those of `rounded`.
    """
    w, alpha = lax.stop_gradient((w, alpha))
    cost, dw, dalpha = _in_float64(temporal)(*alike(w, alpha[None, None, None]))
    known = converged & jnp.isfinite(cost[0, 0, 0])

    def correct(x, exact):
        return x + lax.stop_gradient(jnp.where(known, exact - x, 0))

    return tuple(map(correct, rounded, (cost[0, 0, 0], dw, dalpha[0, 0, 0])))


@functools.cache
def _in_float64(temporal: bool):
    def solve(w, alpha):
        with jax.enable_x64(True):
            a, b, c = brightness(w.astype(jnp.float64))
            alpha = alpha.astype(jnp.float64)
            m = solve_here(temporal, "cg", False, a, b, alpha, c)
            cost = attained(a, b, c, alpha, m.z, m.u, m.v)
            dw, dalpha = slopes(m.u, m.v, alpha * m.z, temporal)
            cost = jnp.where(m.converged[0, 0, 0], cost, jnp.nan)
            out = cost[None, None, None], dw, jnp.asarray(dalpha)[None, None, None]
            return tuple(x.astype(w.dtype) for x in out)

    return each_device(solve)
