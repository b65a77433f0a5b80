"""Applying a symmetric circulant operator along one axis: the only place that picks an algorithm.

Every gradient of this package is g = E f, with E symmetric and invariant under cyclic shifts along
an axis of length n. Such an E is a kernel of length n, g[o] = sum_j kernel[(o - j) mod n] f[j], or
as well the n real eigenvalues that are the discrete Fourier transform of that kernel. Two families
are enough:

* `GreenCirculant`: a I + b M + c S, with M the mean along the axis and S the periodic Green's
  operator (eigenvalues 0 for k = 0 and 1 / (4 n^2 sin^2(pi k / n)) for k > 0): the L2, re-weighted
  L2 and Sobolev gradients. M and S are constants, so the numbers a, b and c may be traced at no
  cost.
* `SpectralCirculant`: any eigenvalues, as a function of t_k = 4 sin^2(pi k / n): Laplacian
  smoothing.

Three algorithms, which agree to round-off:

* ``dense``: product with the n x n matrix. n multiplications for each element, but at the speed of
  a matrix product.
* ``fft``: real FFT, product with the eigenvalues, inverse FFT. The only one for the very long
  lines of `raster`.
* ``prefix``: `GreenCirculant` only; linear in n, from the moments of short blocks (the derivation
  is at `_prefix`).
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

METHODS = ("auto", "dense", "fft", "prefix")

# The longest axis for which each method is chosen; beyond the last one it is the FFT. "prefix"
# applies to GreenCirculant alone. CPU: measured by experiments/bench_channel_grad.py. Others: not
# measured, from principle: a dense product costs little more than its memory traffic there, and
# short kernels launched one by one cost more.
_DENSE_UP_TO = {"cpu": 96, "other": 512}
_DENSE_UP_TO_WITHOUT_PREFIX = {"cpu": 256, "other": 1024}
_PREFIX_UP_TO = 4096

# Channels in one block of the prefix method: smaller blocks leave the matrix units idle, larger
# ones cost more multiplications; 32 was the fastest of 8, 16, 32, 64 and 128 for every n from 128
# to 512.
_BLOCK = 32

_HIGHEST = jax.lax.Precision.HIGHEST  # never TF32 or bfloat16 passes: they would cost 3 digits


@dataclasses.dataclass(frozen=True)
class GreenCirculant:
    """The operator ``identity * I + mean * M + green * S``; ``green=None`` leaves S out."""

    identity: ArrayLike
    mean: ArrayLike
    green: ArrayLike | None = None

    def eigenvalues(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """Eigenvalues for the frequencies 0 ... n // 2, shape (n // 2 + 1,)."""
        first = jnp.asarray(np.arange(n // 2 + 1) == 0, dtype)
        values = jnp.asarray(self.identity, dtype) + jnp.asarray(self.mean, dtype) * first
        if self.green is None:
            return values
        t = frequencies(n)
        green = np.where(t > 0, 1 / np.where(t > 0, n * n * t, 1.0), 0.0)
        return values + jnp.asarray(self.green, dtype) * jnp.asarray(green, dtype)

    def kernel(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """The circular kernel, shape (n,)."""
        first = jnp.asarray(np.arange(n) == 0, dtype)
        values = jnp.asarray(self.identity, dtype) * first + jnp.asarray(self.mean, dtype) / n
        if self.green is None:
            return values
        return values + jnp.asarray(self.green, dtype) * jnp.asarray(green_kernel(n), dtype)

    def matrix(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """The n x n matrix."""
        values = jnp.asarray(self.identity, dtype) * jnp.eye(n, dtype=dtype)
        values = values + jnp.asarray(self.mean, dtype) / n
        if self.green is None:
            return values
        # A constant for the compiler: the gather would otherwise be repeated in every step.
        green = green_kernel(n)[_offsets(n)]
        return values + jnp.asarray(self.green, dtype) * jnp.asarray(green, dtype)


@dataclasses.dataclass(frozen=True)
class SpectralCirculant:
    """The operator with the eigenvalue ``response(t_k)`` at frequency k, t_k = 4 sin^2(pi k /
    n)."""

    response: Callable[[jax.Array], jax.Array]

    def eigenvalues(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """Eigenvalues for the frequencies 0 ... n // 2, shape (n // 2 + 1,)."""
        return self.response(jnp.asarray(frequencies(n), dtype)).astype(dtype)

    def kernel(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """The circular kernel, shape (n,)."""
        return jnp.fft.irfft(self.eigenvalues(n, dtype), n=n).astype(dtype)

    def matrix(self, n: int, dtype: jnp.dtype) -> jax.Array:
        """The n x n matrix."""
        return self.kernel(n, dtype)[_offsets(n)]


Circulant = GreenCirculant | SpectralCirculant


def frequencies(n: int) -> np.ndarray:
    """t_k = 4 sin^2(pi k / n), k = 0 ... n // 2: minus the eigenvalues of [1, -2, 1], periodic."""
    return 4 * np.sin(np.pi * np.arange(n // 2 + 1) / n) ** 2


def green_kernel(n: int) -> np.ndarray:
    """The kernel of S: (x^2 - x + (1 - 1/n^2) / 6) / (2 n) with x = m / n, m = 0 ... n - 1."""
    x = np.arange(n) / n
    return (x * x - x + (1 - 1 / n**2) / 6) / (2 * n)


def apply_circulant(
    f: jax.Array, operator: Circulant, axis: int = -1, method: str = "auto"
) -> jax.Array:
    """Apply a symmetric circulant operator to every line of an array along one axis.

    Args:
        f: array of any shape; float64 is computed in float64, anything else in float32.
        operator: the operator; its numbers may be traced.
        axis: the axis of length n.
        method: ``"dense"``, ``"fft"`` or ``"prefix"`` to force one algorithm; ``"auto"`` chooses
            by n.

    Returns:
        An array of the shape and dtype of f. A NaN or an infinity stays within its line: only the
        n elements that share all other indices with it become non-finite.

    Raises:
        ValueError: on an unknown method, or ``"prefix"`` for an operator or a length that it does
        not serve.
    """
    f = jnp.asarray(f)
    axis = range(f.ndim)[axis]
    n = f.shape[axis]
    method = _choose(operator, n, method)
    dtype = jnp.float64 if f.dtype == jnp.float64 else jnp.float32
    if f.size == 0:
        return f
    lines = f.astype(dtype).reshape(
        int(np.prod(f.shape[:axis])), n, int(np.prod(f.shape[axis + 1 :]))
    )
    result = {"dense": _dense, "fft": _fft, "prefix": _prefix}[method](lines, operator)
    return result.reshape(f.shape).astype(f.dtype)


def _choose(operator: Circulant, n: int, method: str) -> str:
    has_prefix = isinstance(operator, GreenCirculant)
    closed_form = has_prefix and operator.green is None
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown; accepted: {', '.join(METHODS)}")
    if method == "prefix" and not has_prefix:
        raise ValueError(
            "method='prefix' serves the L2, re-weighted L2 and Sobolev gradients; "
            "accepted here: auto, dense, fft"
        )
    if method == "prefix" and n > _PREFIX_UP_TO and not closed_form:
        raise ValueError(
            f"method='prefix' came with an axis of length {n}; accepted: lengths up to "
            f"{_PREFIX_UP_TO}, or method='fft'"
        )
    if method != "auto":
        return method
    if closed_form:
        return "prefix"
    backend = "cpu" if jax.default_backend() == "cpu" else "other"
    limits = _DENSE_UP_TO if has_prefix else _DENSE_UP_TO_WITHOUT_PREFIX
    if n <= limits[backend]:
        return "dense"
    return "prefix" if has_prefix and n <= _PREFIX_UP_TO else "fft"


def _offsets(n: int) -> np.ndarray:
    return (np.arange(n)[:, None] - np.arange(n)[None, :]) % n


def _dense(lines: jax.Array, operator: Circulant) -> jax.Array:
    n = lines.shape[1]
    return jnp.einsum("lnr,nm->lmr", lines, operator.matrix(n, lines.dtype), precision=_HIGHEST)


def _fft(lines: jax.Array, operator: Circulant) -> jax.Array:
    n = lines.shape[1]
    spectrum = jnp.fft.rfft(lines, axis=1)
    scale = operator.eigenvalues(n, lines.dtype)[None, :, None]
    return jnp.fft.irfft(spectrum * scale, n=n, axis=1).astype(lines.dtype)


def _prefix(lines: jax.Array, operator: GreenCirculant) -> jax.Array:
    """a f + b mean(f) + c S f in a number of operations that is linear in n.

    h = S f solves -n^2 (h[o+1] - 2 h[o] + h[o-1]) = f[o] - mean(f) with mean(h) = 0. Cut the axis
    into blocks of length B, and call the values h[0], h[B], h[2B], ... its knots. Within a block,
    h is the line through the two knots at its ends, plus the solution that vanishes there, whose
    matrix is known:

        G[s, t] = min(s, t) (B - max(s, t)) / (B n^2),  sum_s G[s, t] = t (B - t) / (2 n^2).

    The knots are sums of the kernel of S over all j. The kernel is a polynomial of degree 2 in j
    as long as j stays on one side of the knot, and the knots lie between blocks. So a block enters
    the knots by three moments alone: sums of f, s f and s^2 f, s the position about the block's
        centre in units of B.

    This is the prefix sum of prefix sums of eqs. 10-12, without the accumulated round-off of long
    sums, and as three small matrix products. Where n is not a multiple of B, zeros are appended
    and the knots run on beyond n with the same polynomials.
    """
    n, dtype = lines.shape[1], lines.dtype
    identity, mean_weight = (jnp.asarray(x, dtype) for x in (operator.identity, operator.mean))
    if operator.green is None:
        return identity * lines + mean_weight * jnp.mean(lines, axis=1, keepdims=True)
    green = jnp.asarray(operator.green, dtype)
    block = min(_BLOCK, n)
    count = -(-n // block)
    moments, knots, local, bow, ramp = (
        jnp.asarray(constant, dtype) for constant in _prefix_constants(n, block)
    )

    padded = jnp.pad(lines, ((0, 0), (0, count * block - n), (0, 0)))
    blocks = padded.reshape(lines.shape[0], count, block, lines.shape[2])
    sums = jnp.einsum("labr,bk->lakr", blocks, moments, precision=_HIGHEST)
    coarse = jnp.einsum("lakr,akp->lpr", sums, knots, precision=_HIGHEST)
    left = coarse[:, :count, None]
    rise = coarse[:, 1 : count + 1, None] - left
    mean = coarse[:, count + 1 :, None]

    within = identity * jnp.eye(block, dtype=dtype) + green * local
    result = jnp.einsum("labr,bc->lacr", blocks, within, precision=_HIGHEST)
    result = result + green * (left + ramp[:, None] * rise)
    result = result + (mean_weight + green * bow[:, None]) * mean
    return result.reshape(lines.shape[0], count * block, lines.shape[2])[:, :n]


@functools.lru_cache(maxsize=64)
def _prefix_constants(n: int, block: int) -> tuple[np.ndarray, ...]:
    """The constants of `_prefix` in float64, for blocks of length B = `block`, A of them.

    Returns:
        moments (B, 3): the weights 1, s, s^2 of the three moments of a block.
        knots (A, 3, A + 2): from all moments to the knots 0, B, ..., A B, and, last, to the mean
        of f. local (B, B): G. bow (B,): minus its sums, which the mean of f multiplies. ramp (B,):
        t / B.
    """
    count = -(-n // block)
    t = np.arange(block)
    s = (t - (block - 1) / 2) / block
    centre = np.arange(count)[:, None] * block + (block - 1) / 2
    knot = np.arange(count + 1)[None, :] * block
    distance = knot - centre
    side = np.sign(distance)

    knots = np.zeros((count, 3, count + 2))
    # With o - j = distance - B s:  ((o - j)^2 / (2 n^2) - |o - j| / (2 n) + (1 - 1/n^2) / 12) / n
    # in powers of s.
    knots[:, 0, :-1] = distance**2 / (2 * n**2) - np.abs(distance) / (2 * n) + (1 - 1 / n**2) / 12
    knots[:, 1, :-1] = -block * distance / n**2 + side * block / (2 * n)
    knots[:, 2, :-1] = block**2 / (2 * n**2)
    knots[:, 0, -1] = 1.0
    knots /= n

    low, high = np.minimum(t[:, None], t), np.maximum(t[:, None], t)
    local = low * (block - high) / (block * n**2)
    bow = -t * (block - t) / (2 * n**2)
    return np.stack([np.ones(block), s, s * s], axis=1), knots, local, bow, t / block
