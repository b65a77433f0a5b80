"""What all penalties share: checks of their arguments, and Euclidean norms."""

import operator
from collections.abc import Callable, Sequence

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

Axes = int | tuple[int, ...] | None


def widen(name: str, x):
    """Convert x to an array of at least float32; return it and the dtype that x had."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name}: got {x.dtype}; accepted: a floating dtype")
    return x.astype(at_least_float32(x.dtype)), x.dtype


def at_least_float32(dtype):
    """A floating dtype, or float32 in place of a narrower one."""
    return jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype


def normalised_axes(name: str, axes: Axes, x) -> tuple[int, ...]:
    """Axes as numbers >= 0; None means all axes."""
    if axes is None:
        return tuple(range(x.ndim))
    given = tuple(axes) if isinstance(axes, Sequence) else (axes,)
    try:
        given = tuple(operator.index(a) for a in given)
    except TypeError:
        given = ()
    exist = all(-x.ndim <= a < x.ndim for a in given)
    if not given or not exist or len({a % x.ndim for a in given}) < len(given):
        raise ValueError(
            f"{name}: got {axes}; accepted: one or more axes of shape {x.shape}, each once"
        )
    return tuple(a % x.ndim for a in given)


def checked(name: str, value, accepts: Callable[[np.ndarray], np.ndarray], accepted: str):
    """Convert a number to an array; check its value unless it is traced."""
    if not isinstance(value, jax.core.Tracer):
        known = np.asarray(value)
        if known.dtype.kind not in "fiuV" or not np.all(accepts(known.astype(np.float64))):
            raise ValueError(f"{name}: got {value}; accepted: {accepted}")
    return jnp.asarray(value)


def checked_step(step):
    return checked("step", step, lambda s: s >= 0, "0 or positive")


def norm(x, axes: tuple[int, ...], keepdims: bool = False):
    """Euclidean norms along axes, with derivative 0 at 0.

    The norm is m |x / m| for any m > 0, so m can count as a constant in the derivative. With the
    largest absolute value for m, squares neither overflow nor underflow.
    """
    m = jax.lax.stop_gradient(jnp.max(jnp.abs(x), axis=axes, keepdims=True))
    m = jnp.where(m == 0, 1, m)
    squares = jnp.sum((x / m) ** 2, axis=axes, keepdims=True)
    zero = squares == 0
    # The inner `where` keeps the infinite derivative of sqrt at 0 out of the product with 0.
    norms = m * jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))
    return norms if keepdims else jnp.squeeze(norms, axes)
