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
from jax.experimental.xla_metadata import set_xla_metadata
from jax.typing import ArrayLike

METHODS = ("auto", "dense", "fft", "prefix")

# The longest axis for which each method is chosen; beyond the last one it is the FFT. "prefix"
# applies to GreenCirculant alone. CPU: measured by experiments/bench_channel_grad.py. Others: not
# measured, from principle: a dense product costs little more than its memory traffic there, and
# short kernels launched one by one cost more.
_DENSE_UP_TO = {"cpu": 48, "other": 512}
_DENSE_UP_TO_WITHOUT_PREFIX = {"cpu": 128, "other": 1024}
_PREFIX_UP_TO = 4096

# Channels in one block of the prefix method, and in one group of blocks: measured on a CPU, the
# fastest of 4, 8, 16, 32 and of 16, 32, 64, 128 for every n from 128 to 512.
_BLOCK = 16
_GROUP = 32


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
        ValueError: if f has no such axis, on an unknown method, or on ``"prefix"`` for an operator
            or a length that it does not serve.
    """
    f = jnp.asarray(f)
    if not -f.ndim <= axis < f.ndim:
        raise ValueError(
            f"axis={axis!r} came with an array of {f.ndim} dimensions; "
            f"accepted: axes from {-f.ndim} to {f.ndim - 1}"
        )
    n = f.shape[axis]
    method = _choose(operator, n, method)
    dtype = jnp.float64 if f.dtype == jnp.float64 else jnp.float32
    if f.size == 0:
        return f
    if method == "prefix" and operator.green is None:
        wide = f.astype(dtype)
        identity, mean = (jnp.asarray(x, dtype) for x in (operator.identity, operator.mean))
        return (identity * wide + mean * jnp.mean(wide, axis, keepdims=True)).astype(f.dtype)
    # Rows times matrices: plain two-dimensional products are what every backend does best (with the
    # other axes as batch dimensions of one einsum, they took up to 10 times as long on a CPU).
    rows = jnp.moveaxis(f, axis, -1)
    apply = {"dense": _dense, "fft": _fft, "prefix": _prefix}[method]
    result = apply(rows.reshape(-1, n).astype(dtype), operator).astype(f.dtype)
    return jnp.moveaxis(result.reshape(rows.shape), -1, axis)


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


def _dense(rows: jax.Array, operator: Circulant) -> jax.Array:
    return _product(rows, operator.matrix(rows.shape[1], rows.dtype))


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)  # TF32 would cost three digits


def _fft(rows: jax.Array, operator: Circulant) -> jax.Array:
    n = rows.shape[1]
    spectrum = jnp.fft.rfft(rows) * operator.eigenvalues(n, rows.dtype)
    return jnp.fft.irfft(spectrum, n=n).astype(rows.dtype)


def _prefix(rows: jax.Array, operator: GreenCirculant) -> jax.Array:
    """a f + b mean(f) + c S f in a number of operations that is linear in n.

    h = S f solves -n^2 (h[o+1] - 2 h[o] + h[o-1]) = f[o] - mean(f) with mean(h) = 0. Cut the axis
    into blocks of length B, and call the values h[0], h[B], h[2B], ... its knots. Within a block, h
    is the line through the two knots at its ends, plus the solution that vanishes there, whose
    matrix is known:

        G[s, t] = min(s, t) (B - max(s, t)) / (B n^2),  sum_s G[s, t] = t (B - t) / (2 n^2).

    A knot is a sum over all j of f[j] times the kernel of S, which is a polynomial of degree 2 in j
    on either side of the knot. So a group of consecutive blocks enters the knots by few numbers:
    the sums of f, s f and s^2 f over the group, s the position in it, and, for each knot p inside,
    the sum of max(s - p, 0) f.

    This is the prefix sum of prefix sums of eqs. 10-12, without the accumulated round-off of long
    sums. Two small matrix products give the knots; one pass over f does the rest. Where n is not a
    multiple of the length of a group, zeros are appended, and the knots run on beyond n with the
    same polynomials.
    """
    (count_rows, n), dtype = rows.shape, rows.dtype
    identity, mean_weight = (jnp.asarray(x, dtype) for x in (operator.identity, operator.mean))
    block = min(_BLOCK, n)
    group = _GROUP if n > block else block
    moments, to_knots = (jnp.asarray(c, dtype) for c in _knot_constants(n, block, group))

    padded = jnp.pad(rows, ((0, 0), (0, -n % group)))
    sums = _product(padded.reshape(-1, group), moments).reshape(count_rows, -1)
    knots = _product(sums, to_knots)
    blocks = padded.reshape(count_rows, -1, block)
    weights = (identity, mean_weight, jnp.asarray(operator.green, dtype))
    result = _compiled_apart(_fill_blocks)(blocks, knots, weights, n)
    return result.reshape(count_rows, -1)[:, :n]


def _fill_blocks(blocks: jax.Array, knots: jax.Array, weights: tuple, n: int) -> jax.Array:
    """a f + b mean(f) + c h within the blocks, (rows, A, B), from f, and the knots and the mean of
    f.

    A product of blocks with G as fused multiplications rather than a matrix product: XLA for CPU
    then reads f once and writes the result once, which took half the time.
    """
    identity, mean_weight, green = weights
    count, block = blocks.shape[1:]
    t = np.arange(block)
    low, high = np.minimum(t[:, None], t), np.maximum(t[:, None], t)
    local = green * jnp.asarray(low * (block - high) / (block * n**2), blocks.dtype)
    bow = mean_weight - green * jnp.asarray(t * (block - t) / (2 * n**2), blocks.dtype)
    ramp = jnp.asarray(t / block, blocks.dtype)

    left, right = knots[:, :count, None], knots[:, 1 : count + 1, None]
    result = identity * blocks + green * (left + ramp * (right - left)) + bow * knots[:, -1:, None]
    for s in range(1, block):
        result = result + blocks[:, :, s : s + 1] * local[s]
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
    """What leads from f to its knots, in float64; A blocks of length B in C groups.

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
    for index, p in enumerate(inner):
        to_knots[:, 3 + index, :-1] = np.where(knot == start + p, -group / n, 0.0)
    to_knots[:, 0, -1] = 1.0
    return moments, to_knots.reshape(-1, knot.size + 1) / n
