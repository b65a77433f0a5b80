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
* ``prefix``: `GreenCirculant` only; linear in n, from the moments of short blocks (see `_prefix`).

All serve arrays of any rank, because with several devices the axes are kept apart (see
`_sharding`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from channel_grad import _thresholds
from channel_grad._axes import normalize_axes
from channel_grad._prefix import apply_prefix, product
from channel_grad._sharding import several_devices
from channel_grad._thresholds import value_of

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Inexact

METHODS = ("auto", "dense", "fft", "prefix")

# Sums over lines longer than this are scaled, so that they do not overflow where the result does
# not. For shorter ones it would cost more (13 % of an FFT, 40 % of a mean) than it is worth.
_SCALED_FROM = 4096


@dataclasses.dataclass(frozen=True)
class GreenCirculant:
    """The operator ``identity * I + mean * M + green * S``; ``green=None`` leaves S out."""

    identity: ArrayLike
    mean: ArrayLike
    green: ArrayLike | None = None

    def eigenvalues(self, n: int, dtype: jnp.dtype) -> Float[Array, " n//2+1"]:
        """Eigenvalues for the frequencies 0 ... n // 2, shape (n // 2 + 1,)."""
        first = jnp.asarray(np.arange(n // 2 + 1) == 0, dtype)
        values = jnp.asarray(self.identity, dtype) + jnp.asarray(self.mean, dtype) * first
        if self.green is None:
            return values
        t = frequencies(n)
        green = np.where(t > 0, 1 / np.where(t > 0, n * n * t, 1.0), 0.0)
        return values + jnp.asarray(self.green, dtype) * jnp.asarray(green, dtype)

    def kernel(self, n: int, dtype: jnp.dtype) -> Float[Array, " n"]:
        """The circular kernel, shape (n,)."""
        first = jnp.asarray(np.arange(n) == 0, dtype)
        values = jnp.asarray(self.identity, dtype) * first + jnp.asarray(self.mean, dtype) / n
        if self.green is None:
            return values
        return values + jnp.asarray(self.green, dtype) * jnp.asarray(green_kernel(n), dtype)

    def matrix(self, n: int, dtype: jnp.dtype) -> Float[Array, "n n"]:
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

    def eigenvalues(self, n: int, dtype: jnp.dtype) -> Float[Array, " n//2+1"]:
        """Eigenvalues for the frequencies 0 ... n // 2, shape (n // 2 + 1,)."""
        return self.response(jnp.asarray(frequencies(n), dtype)).astype(dtype)

    def kernel(self, n: int, dtype: jnp.dtype) -> Float[Array, " n"]:
        """The circular kernel, shape (n,)."""
        return jnp.fft.irfft(self.eigenvalues(n, dtype), n=n).astype(dtype)

    def matrix(self, n: int, dtype: jnp.dtype) -> Float[Array, "n n"]:
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
    f: Inexact[Array, "*shape"], operator: Circulant, axis: int = -1, method: str = "auto"
) -> Inexact[Array, "*shape"]:
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
    (axis,) = normalize_axes(axis, f.shape, "axis", "an array")
    n = f.shape[axis]
    method = _choose(operator, n, method)
    dtype = jnp.float64 if f.dtype == jnp.float64 else jnp.float32
    if f.size == 0:
        return f
    if method == "prefix" and isinstance(operator, GreenCirculant) and operator.green is None:
        wide = f.astype(dtype)
        identity, mean_weight = (jnp.asarray(x, dtype) for x in (operator.identity, operator.mean))
        return (identity * wide + mean_weight * mean(wide, axis)).astype(f.dtype)
    apply = {"dense": _dense, "fft": _fft, "prefix": _prefix}[method]
    lines = jnp.moveaxis(f, axis, -1)
    shape = lines.shape
    if not several_devices():
        lines = lines.reshape(-1, n)  # up to a quarter faster on a CPU
    result = apply(lines.astype(dtype), operator).astype(f.dtype)
    return jnp.moveaxis(result.reshape(shape), -1, axis)


def mean(f: Float[Array, ...], axis: int) -> Float[Array, ...]:
    """The mean along one axis, which is kept."""
    n = f.shape[axis]
    if n <= _SCALED_FROM:
        return jnp.mean(f, axis, keepdims=True)
    shrink = _power_of_two(n)
    return jnp.sum(f * shrink, axis, keepdims=True) / (n * shrink)


def _power_of_two(n: int) -> float:
    """About 1/n, such that products with it are exact."""
    return 2.0 ** -math.ceil(math.log2(n))


def _is_closed_form(operator: Circulant) -> bool:
    return isinstance(operator, GreenCirculant) and operator.green is None


def _choose(operator: Circulant, n: int, method: str) -> str:
    has_prefix = isinstance(operator, GreenCirculant)
    if method not in METHODS:
        raise ValueError(f"method: got {method!r}; accepted: {', '.join(METHODS)}")
    if method == "prefix" and not has_prefix:
        raise ValueError(
            "method: got 'prefix', which serves the L2, re-weighted L2 and Sobolev gradients; "
            "accepted here: auto, dense, fft"
        )
    longest = value_of(_thresholds.PREFIX_UP_TO)
    if method == "prefix" and n > longest and not _is_closed_form(operator):
        raise ValueError(
            f"method: got 'prefix' for an axis of length {n}; accepted: lengths up to "
            f"{longest}, or method='fft'"
        )
    if method != "auto":
        return method
    if _is_closed_form(operator):
        # A product along a sharded axis would gather the array; a sum does not.
        short = n <= value_of(_thresholds.MEAN_AS_PRODUCT_UP_TO)
        return "dense" if short and not several_devices() else "prefix"
    if n <= _dense_up_to(has_prefix):
        return "dense"
    return "prefix" if has_prefix and n <= longest else "fft"


def _dense_up_to(has_prefix: bool) -> int:
    """The longest axis for which "auto" chooses the dense product."""
    if has_prefix:
        return value_of(_thresholds.DENSE_UP_TO)
    if several_devices():
        return value_of(_thresholds.DENSE_UP_TO_ON_SEVERAL_DEVICES)
    return value_of(_thresholds.DENSE_UP_TO_WITHOUT_PREFIX)


def _offsets(n: int) -> np.ndarray:
    return (np.arange(n)[:, None] - np.arange(n)[None, :]) % n


def _dense(lines: jax.Array, operator: Circulant) -> jax.Array:
    return product(lines, operator.matrix(lines.shape[-1], lines.dtype))


def _fft(lines: jax.Array, operator: Circulant) -> jax.Array:
    n = lines.shape[-1]
    scale = _power_of_two(n) if n > _SCALED_FROM else 1.0
    spectrum = jnp.fft.rfft(lines if scale == 1 else lines * scale)
    # The same dtype, because strict dtype promotion converts nothing by itself.
    eigenvalues = operator.eigenvalues(n, lines.dtype).astype(spectrum.dtype)
    # With explicit axes of length 1: JAX may be told to refuse implicit ones.
    spectrum = spectrum * eigenvalues.reshape((1,) * (spectrum.ndim - 1) + (-1,))
    result = jnp.fft.irfft(spectrum, n=n).astype(lines.dtype)
    return result if scale == 1 else result / scale


def _prefix(lines: jax.Array, operator: GreenCirculant) -> jax.Array:
    weights = (operator.identity, operator.mean, operator.green)
    return apply_prefix(lines, *(jnp.asarray(x, lines.dtype) for x in weights))
