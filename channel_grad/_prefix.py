"""The Sobolev gradient by blocked prefix sums, in a number of operations that is linear in n.

    h = S f solves -n^2 (h[o+1] - 2 h[o] + h[o-1]) = f[o] - mean(f) with mean(h) = 0.

Cut the axis into blocks of length B, and call the values h[0], h[B], h[2B], ... its knots. Within a
block, h is the line through the two knots at its ends, plus the solution that vanishes there, whose
matrix is known:

    G[s, t] = min(s, t) (B - max(s, t)) / (B n^2),  sum_s G[s, t] = t (B - t) / (2 n^2).

A knot is a sum over all j of f[j] times the kernel of S, which is a polynomial of degree 2 in j on
either side of the knot. So a group of consecutive blocks enters the knots by few numbers, its
moments: the sums of f, s f and s^2 f over the group, s the position in it, and, for each knot p
inside, the sum of max(s - p, 0) f. The steps are

    f (n) -> moments of the groups -> knots and mean(f) -> the values within the blocks.

This is the prefix sum of prefix sums of eqs. 10-12, without the accumulated round-off of long
sums. Two small matrix products give the knots; one pass over f does the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.xla_metadata import set_xla_metadata

from channel_grad._sharding import several_devices

if TYPE_CHECKING:
    from jaxtyping import Array, Float

# Channels in one block, and in one group of blocks: measured on a CPU, the fastest of 4, 8, 16, 32
# and of 16, 32, 64, 128 for every n from 128 to 512.
_BLOCK = 16
_GROUP = 32
# The same for an axis that may lie on several devices, from the best to the worst: a group that
# lies on one device needs no data from the others but the knots.
_ON_SEVERAL_DEVICES = ((16, 32), (16, 16), (8, 8), (4, 4))


def apply_prefix(
    f: Float[Array, "*rest n"],
    identity: Float[Array, ""],
    mean: Float[Array, ""],
    green: Float[Array, ""],
) -> Float[Array, "*rest n"]:
    """``identity f + mean mean(f) + green S f`` along the last axis of an array of floats.

    Where n is not a multiple of the length of a group, zeros are appended, and the knots run on
    beyond n with the same polynomials.
    """
    *rest, n = f.shape
    block, group = _lengths(n)
    moments, to_knots = (jnp.asarray(c, f.dtype) for c in _knot_constants(n, block, group))

    padded = jnp.pad(f, [(0, 0)] * len(rest) + [(0, -n % group)])
    sums = product(padded.reshape(*rest, -1, group), moments).reshape(*rest, to_knots.shape[0])
    knots = product(sums, to_knots)
    blocks = padded.reshape(*rest, -1, block)
    result = _compiled_apart(_fill_blocks)(blocks, knots, (identity, mean, green), n)
    return result.reshape(padded.shape)[..., :n]


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product in full precision; TF32 would cost three digits."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _lengths(n: int) -> tuple[int, int]:
    """The lengths of a block and of a group."""
    if several_devices():
        for block, group in _ON_SEVERAL_DEVICES:
            if n % (group * jax.device_count()) == 0:
                return block, group
    block = min(_BLOCK, n)
    return block, _GROUP if n > block else block


def _fill_blocks(blocks: jax.Array, knots: jax.Array, weights: tuple, n: int) -> jax.Array:
    """a f + b mean(f) + c h within the blocks, (*rest, A, B), from f, and the knots and mean(f).

    A product of blocks with G as fused multiplications rather than a matrix product: XLA for CPU
    then reads f once and writes the result once, which took half the time.
    """
    identity, mean_weight, green = weights
    count, block = blocks.shape[-2:]
    t = np.arange(block)
    low, high = np.minimum(t[:, None], t), np.maximum(t[:, None], t)
    local = green * jnp.asarray(low * (block - high) / (block * n**2), blocks.dtype)
    one = (1,) * (blocks.ndim - 1) + (block,)  # explicit axes: JAX may be told to refuse others
    # G solves for f, but S wants f - mean(f): the bow is what G makes of the mean.
    bow = mean_weight - green * jnp.asarray(t * (block - t) / (2 * n**2), blocks.dtype)
    ramp = jnp.asarray(t / block, blocks.dtype).reshape(one)

    left, right = knots[..., :count, None], knots[..., 1 : count + 1, None]
    mean = knots[..., -1:, None]
    result = identity * blocks + green * (left + ramp * (right - left)) + bow.reshape(one) * mean
    # The product with G, one of its rows after the other. Row 0 is zero: h is the knot there.
    for s in range(1, block):
        result = result + blocks[..., s : s + 1] * local[s].reshape(one)
    return result


def _compiled_apart(function: Callable) -> Callable:
    """The function, kept by XLA for CPU as one of its own; the last argument is static.

    Fused with the reshape that follows it, a loop over blocks computes its indices by divisions, is
    no longer vectorised, and takes 10 times as long.
    """
    compiled = jax.jit(function, static_argnums=3)
    if jax.default_backend() != "cpu":
        return compiled

    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


@functools.lru_cache(maxsize=64)
def _knot_constants(n: int, block: int, group: int) -> tuple[np.ndarray, np.ndarray]:
    """The constant matrices from f to its moments to its knots, in float64.

    There are A blocks of length B in C groups; a group has M moments.

    Returns:
        moments (group, M): the weights 1, s, s^2 and max(s - p, 0) of the moments of a group.
        to_knots (C M, A + 2): from all moments to the knots 0, B, ..., A B and, last, to mean(f).
    """
    groups = -(-n // group)
    inner = np.arange(block, group, block)
    position = np.arange(group)
    s = (position - (group - 1) / 2) / group
    kinks = np.maximum(position[:, None] - inner, 0) / group
    moments = np.concatenate([np.stack([np.ones(group), s, s * s], axis=1), kinks], axis=1)

    start = np.arange(groups)[:, None] * group
    knot = np.arange(0, groups * group + 1, block)[None, :]
    distance = knot - (start + (group - 1) / 2)
    side = np.where(knot > start, 1.0, -1.0)
    # o - j = distance - group s. In the kernel of S, write |o - j| = side (o - j), a polynomial,
    # and for a knot inside the group add 2 max(j - o, 0).
    to_knots = np.zeros((groups, 3 + len(inner), knot.size + 1))
    to_knots[:, 0, :-1] = distance**2 / (2 * n**2) - side * distance / (2 * n) + (1 - 1 / n**2) / 12
    to_knots[:, 1, :-1] = -group * distance / n**2 + side * group / (2 * n)
    to_knots[:, 2, :-1] = group**2 / (2 * n**2)
    # The kinks: only the group around a knot has that knot inside.
    for index, p in enumerate(inner):
        to_knots[:, 3 + index, :-1] = np.where(knot == start + p, -group / n, 0.0)
    to_knots[:, 0, -1] = 1.0
    return moments, to_knots.reshape(-1, knot.size + 1) / n
