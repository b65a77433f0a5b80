"""Checks of arguments, and conversion between the public and the internal array layout.

Errors read "NAME: got X; accepted: Y". Filters are `(*batch, T, H, W)` in public functions and
`(T, H, W, *batch)` inside the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from optflow_jax import _solvers
from optflow_jax._sharding import alike

Solver = Literal["auto", "cg", "cholesky", "sparse_cg", "sparse_direct"]
OnFailure = Literal["nan", "drop"]
Layout = Literal["flax", "torch"]

_FLOATING = ("bfloat16", "float16", "float32", "float64")


def floating(name: str, x: Any, shape: str) -> jax.Array:
    """Convert `x` to an array and check its dtype; `shape` describes it in the error."""
    accepted = f"an array {shape} of floating dtype ({', '.join(_FLOATING)})"
    try:
        array = jnp.asarray(x)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: got {_short(x)}; accepted: {accepted}") from error
    if array.dtype.name not in _FLOATING:
        raise ValueError(f"{name}: got dtype {array.dtype}; accepted: {accepted}")
    return array


def _short(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 100 else f"{text[:97]}..."


def smoothness_weight(alpha: Any) -> jax.Array:
    """Convert `alpha` to an array; values that are not traced must be positive and finite."""
    error = ValueError(f"alpha: got {_short(alpha)}; accepted: positive, finite numbers")
    if isinstance(alpha, jax.core.Tracer):
        if jnp.iscomplexobj(alpha) or not jnp.issubdtype(alpha.dtype, jnp.number):
            raise error
        return alpha
    try:
        array = jnp.asarray(alpha)
        known = np.asarray(alpha)
        real = known.dtype.kind in "fiu" or array.dtype.name in _FLOATING
        values = known.astype(np.float64) if real else np.zeros(1)
    except (TypeError, ValueError) as wrong:
        raise error from wrong
    if not np.all((values > 0) & np.isfinite(values)):
        raise error
    return array


def compute_dtype(dtype):
    """The dtype of the computation: float64 for float64, float32 for all others."""
    return jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)


def to_own(x: jax.Array) -> jax.Array:
    """`(*batch, T, H, W)` to `(T, H, W, *batch)`, in the dtype of the computation."""
    return jnp.moveaxis(x, (-3, -2, -1), (0, 1, 2)).astype(compute_dtype(x.dtype))


def to_public(x: jax.Array) -> jax.Array:
    """`(T, H, W, *batch)` to `(*batch, T, H, W)`."""
    return jnp.moveaxis(x, (0, 1, 2), (-3, -2, -1))


def filters(name: str, x: Any, alpha: Any) -> tuple[jax.Array, jax.Array, Callable]:
    """Check filters and alpha, and convert them to the internal layout.

    Args:
        name: the argument's name, for the error.
        x: filters `(*batch, T, H, W)`.
        alpha: broadcastable to `batch`.

    Returns:
        The filters `(T, H, W, *batch)`; alpha `(*batch,)`; and a function that casts an array
        to the dtype of `x`.
    """
    x = floating(name, x, "(*batch, T, H, W)")
    if x.ndim < 3 or 0 in x.shape[-3:]:
        raise ValueError(
            f"{name}: got shape {x.shape}; accepted: (*batch, T, H, W) with T, H, W of at least 1"
        )
    batch, alpha = x.shape[:-3], smoothness_weight(alpha)
    # Cast explicitly: strict dtype promotion (jax_numpy_dtype_promotion) forbids implicit casts.
    alpha = alpha.astype(compute_dtype(x.dtype))
    try:
        alpha = jnp.broadcast_to(alpha, batch)
    except ValueError as error:
        raise ValueError(
            f"alpha: got shape {alpha.shape}; accepted: broadcastable to the batch {batch} of "
            f"{name}"
        ) from error
    w, alpha = alike(to_own(x), alpha)
    return w, alpha, lambda y: y.astype(x.dtype)


def like(reference: str, x: Any, name: str, y: Any) -> jax.Array:
    """Check that `y` has the shape of `x`, and convert it to `(T, H, W, *batch)`."""
    x = jnp.asarray(x)
    y = floating(name, y, f"of the shape of {reference}")
    if y.shape != x.shape:
        raise ValueError(f"{name}: got shape {y.shape}; accepted: {x.shape}, that of {reference}")
    return to_own(y.astype(x.dtype))


def choice(name: str, value: Any, accepted) -> Any:
    """Check that `value` is one of the accepted names."""
    if not isinstance(value, str) or value not in accepted:
        raise ValueError(f"{name}: got {_short(value)}; accepted: {', '.join(map(repr, accepted))}")
    return value


def temporal_flag(value: Any) -> bool:
    """Check `temporal`."""
    if not isinstance(value, (bool, np.bool_)) and not (type(value) is int and value in (0, 1)):
        raise ValueError(f"temporal: got {_short(value)}; accepted: True, False")
    return bool(value)


def options(temporal: Any, solver: Any, on_failure: Any) -> tuple[bool, Any, Any]:
    """Check the options that are static in the compiled program."""
    return (
        temporal_flag(temporal),
        choice("solver", solver, _solvers.SOLVERS),
        choice("on_failure", on_failure, get_args(OnFailure)),
    )
