"""The metrics: inner product, gradient and kernel of each, along one axis of a tensor.

A metric <., .>_m turns the ordinary gradient f of a loss into the gradient g for which
<g, k>_m = <f, k> for every k. There, <f, k> is the average of f_o k_o along the axis, summed over
all other indices. Source: "Channel-Directed Gradients for Optimization of Convolutional Neural
Networks", eqs. 3-12; Laplacian smoothing: Osher et al., arXiv 1806.06317.
"""

import dataclasses
import math
import numbers
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from channel_grad._circulant import (
    Circulant,
    GreenCirculant,
    SpectralCirculant,
    apply_circulant,
)

Axis = int | tuple[int, ...]


class Metric:
    """What all metrics share; a subclass says what its operator and its inner product are."""

    def gradient(self, f: ArrayLike, axis: Axis = -1, method: str = "auto") -> jax.Array:
        """The gradient with respect to this metric.

        Args:
            f: the ordinary gradient, of any shape. float64 is computed in float64, all else in
                float32.
            axis: the axis along which the metric acts; several axes are first flattened into one,
                in the order given.
            method: the algorithm, see `apply_circulant`: ``"auto"``, ``"dense"``, ``"fft"`` or
                ``"prefix"``.

        Returns:
            g with ``inner(g, k) == mean_L2(f, k)`` for every k, in the shape and dtype of f. Lines
            along the axis do not mix: a NaN stays in its line.

        Raises:
            ValueError: if f has no such axis, or the method does not serve this metric.

        Example:
            >>> metric = Sobolev(lam=1.0)
            >>> g = metric.gradient(jnp.ones((3, 3, 16, 32)), axis=-1)
        """
        f = jnp.asarray(f)
        axes = _normalize(axis, f.ndim)
        if len(axes) == 1:
            return self._gradient(f, axes[0], method)
        lines = jnp.moveaxis(f, axes, range(-len(axes), 0))
        rest = lines.shape[: -len(axes)]
        g = self._gradient(lines.reshape(*rest, math.prod(lines.shape[len(rest) :])), -1, method)
        return jnp.moveaxis(g.reshape(lines.shape), range(-len(axes), 0), axes)

    def inner(self, k1: ArrayLike, k2: ArrayLike, axis: Axis = -1) -> jax.Array:
        """The inner product of two tensors: an average along `axis`, a sum over all other indices.

        Args:
            k1, k2: arrays of one shape.
            axis: the axis along which the metric acts; several axes are first flattened into one,
                in the order given.

        Returns:
            A scalar, of dtype float64 if either argument is, else float32.

        Raises:
            ValueError: if the shapes differ, there is no such axis, or the map is not the gradient
            of any metric.
        """
        k1, k2 = jnp.asarray(k1), jnp.asarray(k2)
        if k1.shape != k2.shape:
            raise ValueError(
                f"k1 and k2 came with shapes {k1.shape} and {k2.shape}; accepted: one shape"
            )
        dtype = jnp.float64 if jnp.float64 in (k1.dtype, k2.dtype) else jnp.float32
        axes = _normalize(axis, k1.ndim)
        length = math.prod(k1.shape[a] for a in axes)
        k1, k2 = (
            jnp.moveaxis(k.astype(dtype), axes, range(-len(axes), 0)).reshape(-1, length)
            for k in (k1, k2)
        )
        return jnp.sum(self._inner(k1, k2))

    def kernel(self, n: int) -> jax.Array:
        """The circular kernel of the map: ``gradient(f)[o] = sum_j kernel(n)[(o - j) % n] * f[j]``.

        Args:
            n: the length of the axis.

        Returns:
            Shape (n,), of JAX's default float dtype.

        Raises:
            ValueError: if n < 1, or the map is not a circular convolution.
        """
        if n < 1:
            raise ValueError(f"n={n!r} came; accepted: n >= 1")
        return self._operator(n).kernel(n, jnp.zeros(()).dtype)

    def _operator(self, n: int) -> Circulant:
        """The map f -> g along an axis of length n."""
        raise NotImplementedError

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        return apply_circulant(f, self._operator(f.shape[axis]), axis, method)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        """The inner products of the rows of two (rows, n) arrays: (rows,)."""
        raise NotImplementedError


def _metric(*static: str):
    """Frozen dataclass and pytree: all fields are leaves but those named, which are static."""

    def decorate(cls):
        cls = dataclasses.dataclass(frozen=True)(cls)
        names = [f.name for f in dataclasses.fields(cls) if f.name not in static]

        def flatten_with_keys(metric):
            keys = [(jax.tree_util.GetAttrKey(name), getattr(metric, name)) for name in names]
            return keys, tuple(getattr(metric, name) for name in static)

        def unflatten(static_values, leaves):
            # Not through __init__, which checks: JAX fills trees with whatever it likes.
            metric = object.__new__(cls)
            for name, value in zip((*static, *names), (*static_values, *leaves), strict=True):
                object.__setattr__(metric, name, value)
            return metric

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
        return cls

    return decorate


@_metric()
class L2(Metric):
    """The ordinary metric, eq. 3: ``<k1, k2>``; its gradient is f itself."""

    def _operator(self, n: int) -> Circulant:
        return GreenCirculant(identity=1.0, mean=0.0)

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        return f if method == "auto" else super()._gradient(f, axis, method)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        return jnp.mean(k1 * k2, axis=-1)


@_metric("form")
class ReweightedL2(Metric):
    """The re-weighted L2 metric: the mean along the axis weighs otherwise than the deviations from
    it.

    * ``form="code"`` (figure 3, what the paper's experiments ran): ``g = f + lam * mean(f)``, lam
      >= 0; the metric is ``mean(k1) mean(k2) / (1 + lam) + <k1 - mean, k2 - mean>``.
    * ``form="equation"`` (eqs. 4 and 8): ``g = mean(f) + (f - mean(f)) / lam``, lam > 0; the
      metric is ``mean(k1) mean(k2) + lam <k1 - mean, k2 - mean>``.

    The two are one family: ``lam * g_equation(lam) == g_code(lam - 1)``.

    Raises:
        ValueError: on an unknown form, or a lam that the form does not accept.

    Example:
        >>> ReweightedL2(lam=1.0).gradient(jnp.array([1.0, 3.0]))
        Array([3., 5.], dtype=float32)
    """

    lam: ArrayLike = 1.0
    form: str = "code"

    FORMS: ClassVar[tuple[str, ...]] = ("code", "equation")

    def __post_init__(self):
        _check_choice("form", self.form, self.FORMS)
        _check_number("lam", self.lam, positive=self.form == "equation")

    def _operator(self, n: int) -> Circulant:
        if self.form == "code":
            return GreenCirculant(identity=1.0, mean=self.lam)
        inverse = 1.0 / _wide(self.lam)
        return GreenCirculant(identity=inverse, mean=1.0 - inverse)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        lam = jnp.asarray(self.lam, k1.dtype)
        mean_weight, rest_weight = (1 / (1 + lam), 1) if self.form == "code" else (1, lam)
        (mean1, rest1), (mean2, rest2) = _split(k1), _split(k2)
        return mean_weight * mean1 * mean2 + rest_weight * jnp.mean(rest1 * rest2, axis=-1)


@_metric("discretization")
class Sobolev(Metric):
    """The Sobolev metric of eq. 6, plus some of L2: ``gradient(f) = l2_weight * f + lam * h``.

    h is the gradient for ``mean(k1) mean(k2) + lam <n d k1, n d k2>``, d the cyclic forward
    difference and n the length of the axis. The paper adds it "to a scaled version of the L2
    gradient" so as not to smooth too much, without giving the scale; ``l2_weight=0`` is the pure
    gradient, times lam, as its listing returns it. Note that ``lam * h`` is ``lam * mean(f)`` plus
    a smooth part that does not depend on lam.

    * ``discretization="exact"``: h solves ``mean(h) - lam n^2 (h[o+1] - 2 h[o] + h[o-1]) = f[o]``.
      It has the mean of f.
    * ``"riemann"``: the sum of eq. 9 over the grid,
      ``h[o] = (1/n) sum_j K(((o - j) mod n) / n) f[j]``, ``K(s) = 1 + (s^2 - s + 1/6) / (2 lam)``.
      Its mean is that of f times ``1 + 1 / (12 lam n^2)``; the rest is "exact".
    * ``"listing"``: figure 12, which leaves out g(0) of eq. 12. It is not invariant under shifts
      of the channels, so it has no kernel, and is not the gradient of a metric.

    Raises:
        ValueError: on an unknown discretization, lam <= 0 or l2_weight < 0.

    Example:
        >>> g = Sobolev(lam=1.0, l2_weight=0.0).gradient(jnp.arange(4.0))
    """

    lam: ArrayLike = 1.0
    l2_weight: ArrayLike = 1.0
    discretization: str = "exact"

    DISCRETIZATIONS: ClassVar[tuple[str, ...]] = ("exact", "riemann", "listing")

    def __post_init__(self):
        _check_choice("discretization", self.discretization, self.DISCRETIZATIONS)
        _check_number("lam", self.lam, positive=True)
        _check_number("l2_weight", self.l2_weight)

    def _operator(self, n: int) -> Circulant:
        if self.discretization == "listing":
            raise ValueError(
                "discretization='listing' is not a circular convolution and has no kernel; "
                "accepted here: exact, riemann"
            )
        # On the grid, (s^2 - s + 1/6) / 2 is 1 / (12 n^2) on average, not 0: the mean of "riemann".
        excess = 1 / (12 * max(n, 1) ** 2) if self.discretization == "riemann" else 0.0
        return GreenCirculant(identity=self.l2_weight, mean=_wide(self.lam) + excess, green=1.0)

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        if self.discretization != "listing" or f.size == 0:
            return super()._gradient(f, axis, method)
        # The listing integrates from h[0] = mean(f) instead of from g(0): "exact", shifted along
        # each line by what its smooth part has at o = 0. Shift the smooth part by itself, so that
        # l2_weight * f does not cancel.
        dtype = jnp.float64 if f.dtype == jnp.float64 else jnp.float32
        wide = f.astype(dtype)
        smooth = apply_circulant(wide, GreenCirculant(0.0, 0.0, 1.0), axis, method)
        start = jax.lax.slice_in_dim(smooth, 0, 1, axis=axis)
        mean = jnp.mean(wide, axis=axis, keepdims=True)
        g = jnp.asarray(self.l2_weight, dtype) * wide + smooth
        return (g + (jnp.asarray(self.lam, dtype) * mean - start)).astype(f.dtype)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        if self.discretization == "listing":
            raise ValueError(
                "discretization='listing' is not the gradient of any metric and has no inner "
                "product; accepted here: exact, riemann"
            )
        # The inverse of the map has the eigenvalue u / (1 + l2_weight u) with u = n^2 t, t as in
        # frequencies(n), on the deviations from the mean: the n^2 d^T d of eq. 6 itself where
        # l2_weight = 0.
        n = k1.shape[-1]
        weight = jnp.asarray(self.l2_weight, k1.dtype)
        mean_value = weight + jnp.asarray(self._operator(n).mean, k1.dtype)
        inverse = SpectralCirculant(lambda t: n * n * t / (1 + weight * (n * n * t)))
        (mean1, rest1), (mean2, rest2) = _split(k1), _split(k2)
        smooth = jnp.mean(rest1 * apply_circulant(rest2, inverse, method="fft"), axis=-1)
        return mean1 * mean2 / mean_value + smooth


@_metric("order")
class LaplacianSmoothing(Metric):
    """Laplacian smoothing of Osher et al.: ``g = (I + (-1)^order sigma Delta^order)^-1 f``.

    Delta is the periodic [1, -2, 1], so that high frequencies are divided by up to
    ``1 + sigma 4^order``, whatever the length of the axis. The metric is
    ``<k1, (I + (-1)^order sigma Delta^order) k2>``.

    The order is static. An integer array is also taken, because `optax.inject_hyperparams` makes
    one of every number.

    Raises:
        ValueError: if sigma < 0, or order is not an integer >= 1.

    Example:
        >>> g = LaplacianSmoothing(sigma=1.0).gradient(jnp.arange(4.0))
    """

    sigma: ArrayLike = 1.0
    order: int = 1

    def __post_init__(self):
        _check_number("sigma", self.sigma)
        order = self.order
        if isinstance(order, bool | str | float) or (
            isinstance(order, numbers.Integral) and order < 1
        ):
            raise ValueError(f"order={order!r} came; accepted: an integer >= 1")

    def _operator(self, n: int) -> Circulant:
        return SpectralCirculant(
            lambda t: 1 / (1 + jnp.asarray(self.sigma, t.dtype) * t**self.order)
        )

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        image = k2
        for _ in range(self.order):
            image = 2 * image - jnp.roll(image, 1, axis=-1) - jnp.roll(image, -1, axis=-1)
        return jnp.mean(k1 * (k2 + jnp.asarray(self.sigma, k1.dtype) * image), axis=-1)


def _wide(x: ArrayLike) -> ArrayLike:
    """A schedule of a bfloat16 model comes as bfloat16: compute with it in float32 at least."""
    return x if isinstance(x, numbers.Real) else x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _split(k: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean of each row, and what deviates from it."""
    mean = jnp.mean(k, axis=-1)
    return mean, k - mean[:, None]


def _normalize(axis: Axis, ndim: int) -> tuple[int, ...]:
    axes = axis if isinstance(axis, tuple) else (axis,)
    if not axes or not all(-ndim <= a < ndim for a in axes):
        raise ValueError(
            f"axis={axis!r} came with an array of {ndim} dimensions; "
            f"accepted: axes from {-ndim} to {ndim - 1}"
        )
    positive = tuple(a % ndim for a in axes)
    if len(set(positive)) < len(positive):
        raise ValueError(f"axis={axis!r} names an axis twice; accepted: different axes")
    return positive


def _check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}={value!r} is unknown; accepted: {', '.join(accepted)}")


def _check_number(name: str, value: object, positive: bool = False) -> None:
    """Check plain numbers only: tracers, arrays and the placeholders that JAX puts into trees have
    no value yet."""
    if value is None or isinstance(value, str | bool):
        raise ValueError(f"{name}={value!r} came; accepted: a number")
    if not isinstance(value, numbers.Real):
        return
    if not (value > 0 if positive else value >= 0) or math.isinf(value):
        sign = "> 0" if positive else ">= 0"
        raise ValueError(f"{name}={value!r} came; accepted: a finite number {sign}")
