"""What all metrics share.

A metric <., .>_m turns the ordinary gradient f of a loss into the gradient g for which
<g, k>_m = <f, k> for every k. There, <f, k> is the average of f_o k_o along the axis, summed over
all other indices. Source: "Channel-Directed Gradients for Optimization of Convolutional Neural
Networks", eqs. 3-12; Laplacian smoothing: Osher et al., arXiv 1806.06317.
"""

from __future__ import annotations

import abc
import copy
import dataclasses
import math
import numbers
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from channel_grad._axes import normalize_axes
from channel_grad._circulant import METHODS, Circulant, apply_circulant
from channel_grad._sharding import with_automatic_sharding

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Inexact, Real

Lines = tuple[int, ...]
M = TypeVar("M", bound="Metric")


class Metric(abc.ABC):
    """What all metrics share; a subclass says what its operator and its inner product are.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> for metric in (channel_grad.L2(), channel_grad.ReweightedL2(lam=1.0)):
        ...     assert isinstance(metric, channel_grad.Metric)
        ...     print(metric.gradient(jnp.array([1.0, 3.0])))
        [1. 3.]
        [3. 5.]
    """

    METHODS: ClassVar[tuple[str, ...]] = METHODS

    def gradient(
        self,
        f: Inexact[ArrayLike, "*shape"],
        axis: int | tuple[int, ...] = -1,
        method: str = "auto",
    ) -> Inexact[Array, "*shape"]:
        """The gradient with respect to this metric: g with ``<g, k>_m = <f, k>`` for every k.

        Args:
            f: the ordinary gradient, of any shape. float64 is computed in float64, other floats in
                float32; of complex numbers, the real and the imaginary part each.
            axis: the axis along which the metric acts; several axes are first flattened into one,
                in the order given.
            method: the algorithm: ``"dense"`` (a matrix product), ``"fft"``, ``"prefix"`` (linear
                in the length; not for `LaplacianSmoothing`), or ``"auto"``, which chooses.

        Returns:
            g, in the shape and dtype of f. Lines along the axis do not mix: a NaN stays in its
            line.

        Raises:
            ValueError: if f holds integers or has no such axis, or the method does not serve this
                metric.

        Example:
            >>> import channel_grad, jax.numpy as jnp
            >>> g = channel_grad.Sobolev(lam=1.0).gradient(jnp.ones((3, 3, 16, 32)), axis=-1)
            >>> g.shape
            (3, 3, 16, 32)
        """
        f = _array("f", f)
        axes = normalize_axes(axis, f.shape, "axis", "an array")
        self.check_method(method)
        if jnp.issubdtype(f.dtype, jnp.complexfloating):
            parts = (self.gradient(part, axes, method) for part in (f.real, f.imag))
            return jax.lax.complex(*parts)

        def gradient(numbers: dict[str, jax.Array], f: jax.Array) -> jax.Array:
            return self.with_numbers(**numbers)._along(axes, method, f)

        return with_automatic_sharding(gradient, self._arrays(), f)

    def inner(
        self,
        k1: Inexact[ArrayLike, "*shape"],
        k2: Inexact[ArrayLike, "*shape"],
        axis: int | tuple[int, ...] = -1,
    ) -> Float[Array, ""]:
        """The inner product of two tensors: an average along `axis`, a sum over all other indices.

        Args:
            k1, k2: arrays of one shape; of complex numbers, the products of the real parts and of
                the imaginary parts are added.
            axis: the axis along which the metric acts; several axes are first flattened into one,
                in the order given.

        Returns:
            A scalar, of dtype float64 if either argument is double precision, else float32.

        Raises:
            ValueError: if the shapes differ, the numbers are integers, there is no such axis, or
                the map is not the gradient of any metric.

        Example:
            >>> import channel_grad, jax.numpy as jnp
            >>> metric, f = channel_grad.Sobolev(), jnp.array([1.0, 3.0])
            >>> bool(jnp.allclose(metric.inner(metric.gradient(f), f), jnp.mean(f * f)))
            True
        """
        k1, k2 = _array("k1", k1), _array("k2", k2)
        if k1.shape != k2.shape:
            raise ValueError(f"k1, k2: got shapes {k1.shape} and {k2.shape}; accepted: one shape")
        axes = normalize_axes(axis, k1.shape, "axis", "arrays")
        if any(jnp.issubdtype(k.dtype, jnp.complexfloating) for k in (k1, k2)):
            return self.inner(k1.real, k2.real, axes) + self.inner(k1.imag, k2.imag, axes)
        dtype = jnp.float64 if jnp.float64 in (k1.dtype, k2.dtype) else jnp.float32

        def inner(numbers: dict[str, jax.Array], k1: jax.Array, k2: jax.Array) -> jax.Array:
            lines = (flatten_axes(k.astype(dtype), axes) for k in (k1, k2))
            return jnp.sum(self.with_numbers(**numbers)._inner(*lines))

        return with_automatic_sharding(inner, self._arrays(), k1, k2, scalar=True)

    def kernel(self, n: int) -> Float[Array, " n"]:
        """The circular kernel of the map: ``gradient(f)[o] = sum_j kernel(n)[(o - j) % n] * f[j]``.

        Args:
            n: the length of the axis.

        Returns:
            Shape (n,), of JAX's default float dtype.

        Raises:
            ValueError: if n < 1, or the map is not a circular convolution.

        Example:
            >>> import channel_grad
            >>> channel_grad.ReweightedL2(lam=1.0).kernel(2)
            Array([1.5, 0.5], dtype=float32)
        """
        if n < 1:
            raise ValueError(f"n: got {n!r}; accepted: n >= 1")
        return self._operator(n).kernel(n, jnp.zeros(()).dtype)

    def check_method(self, method: str) -> None:
        """Raise a ValueError if there is no such method for this metric."""
        if not isinstance(method, str) or method not in self.METHODS:
            raise ValueError(f"method: got {method!r}; accepted: {', '.join(self.METHODS)}")

    def with_numbers(self: M, **values: ArrayLike) -> M:
        """A copy with other numbers, such as the values of schedules, which are not checked."""
        if not values:
            return self
        metric = copy.copy(self)
        for name, value in values.items():
            object.__setattr__(metric, name, value)
        return metric

    def _arrays(self) -> dict[str, jax.Array]:
        """The numbers that are JAX arrays, perhaps traced."""
        values = vars(self).items()
        return {name: value for name, value in values if isinstance(value, jax.Array)}

    def _along(self, axes: Lines, method: str, f: jax.Array) -> jax.Array:
        """The gradient along one axis, or along several that are flattened."""
        if len(axes) == 1:
            return self._gradient(f, axes[0], method)
        last = tuple(range(-len(axes), 0))
        lines = jnp.moveaxis(f, axes, last)
        g = self._gradient(flatten_axes(f, axes), -1, method)
        return jnp.moveaxis(g.reshape(lines.shape), last, axes)

    @abc.abstractmethod
    def _operator(self, n: int) -> Circulant:
        """The map f -> g along an axis of length n."""

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        """The gradient of floats along one axis >= 0 or -1."""
        return apply_circulant(f, self._operator(f.shape[axis]), axis, method)

    @abc.abstractmethod
    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        """The inner products of lines of length n, (*rest, n): shape (*rest,)."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def metric_dataclass(cls: type[M]) -> type[M]:
    """A frozen dataclass that is a tree for JAX: its numbers are leaves, so they may be traced.

    Fields with ``metadata={"static": True}`` are part of the tree's structure.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    static = [field.name for field in fields if field.metadata.get("static")]
    names = [field.name for field in fields if field.name not in static]

    def flatten_with_keys(metric: M) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        keys = [(jax.tree_util.GetAttrKey(name), getattr(metric, name)) for name in names]
        return keys, tuple(getattr(metric, name) for name in static)

    def unflatten(static_values: tuple[Any, ...], leaves: Any) -> M:
        # Not through __init__, which checks: JAX fills trees with objects of any kind.
        metric = object.__new__(cls)
        for name, value in zip((*static, *names), (*static_values, *leaves), strict=True):
            object.__setattr__(metric, name, value)
        return metric

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten)
    return cls


def check_choice(name: str, value: object, accepted: tuple[str, ...]) -> None:
    """Raise a ValueError if value is not one of the strings accepted."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name}: got {value!r}; accepted: {', '.join(accepted)}")


def check_number(name: str, value: Any, positive: bool = False, above: float | None = None) -> None:
    """Raise a ValueError if value is not a finite number >= 0; > 0 if positive, or > above.

    Only the shape and dtype of a tracer can be checked.
    """
    if positive:
        above = 0.0
    accepted = "a finite number " + (">= 0" if above is None else f"> {above:g}")
    if callable(value):
        raise ValueError(
            f"{name}: got a function, {value!r}; accepted: {accepted}; schedules are accepted by "
            "the scale_by_* functions"
        )
    is_array = isinstance(value, np.ndarray | np.generic | jax.Array)
    if is_array:
        real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
        right = value.shape == () and real
    else:
        right = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not right:
        raise ValueError(f"{name}: got {value!r}; accepted: {accepted}")
    if isinstance(value, Tracer):
        return
    number = float(value)
    if not (number >= 0 if above is None else number > above) or math.isinf(number):
        raise ValueError(f"{name}: got {value!r}; accepted: {accepted}")


def at_least_float32(x: ArrayLike) -> Any:
    """A schedule of a bfloat16 model comes as bfloat16: compute with it in float32 at least."""
    if isinstance(x, jax.Array | np.ndarray) and not isinstance(x, np.generic):
        return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
    return float(x) if isinstance(x, np.generic) else x


def flatten_axes(f: jax.Array, axes: Lines) -> jax.Array:
    """Move `axes` to the end and flatten them into one."""
    lines = jnp.moveaxis(f, axes, tuple(range(-len(axes), 0)))
    rest = lines.shape[: f.ndim - len(axes)]
    return lines.reshape(*rest, math.prod(f.shape[axis] for axis in axes))


def mean_and_rest(k: Real[Array, "*rest n"]) -> tuple[Real[Array, "*rest"], Real[Array, "*rest n"]]:
    """The mean of each line, and what deviates from it."""
    mean = jnp.mean(k, axis=-1)
    return mean, k - mean[..., None]


def _array(name: str, f: Any) -> jax.Array:
    """An array of floats or complex numbers."""
    array = jnp.asarray(f)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        raise ValueError(
            f"{name}: got an array of dtype {array.dtype}; accepted: floats or complex numbers"
        )
    return array
