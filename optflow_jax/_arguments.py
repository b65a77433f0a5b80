"""Checks of arguments, and the change between the public layout and the package's own."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from optflow_jax import _solvers


def _floating(name: str, x):
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must have a floating dtype; got {x.dtype}")
    return x


def positive(alpha):
    """`alpha` as an array; values that are known already must be positive."""
    if not isinstance(alpha, jax.core.Tracer):
        values = np.asarray(alpha)
        if values.dtype.kind not in "fiuV" or not np.all(values.astype(np.float64) > 0):
            raise ValueError(f"alpha must be positive; got {alpha}")
    return jnp.asarray(alpha)


def compute_dtype(dtype):
    """The dtype that is computed in: at least float32."""
    return jnp.promote_types(dtype, jnp.float32)


def to_pixels(x):
    """`(*batch, T, H, W)` to `(T, H, W, N)`, in the dtype of the computation."""
    x = x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:])
    return jnp.moveaxis(x, 0, -1).astype(compute_dtype(x.dtype))


def from_pixels(x, batch: tuple[int, ...], dtype):
    """`(T, H, W, N)` to `(*batch, T, H, W)`."""
    x = jnp.moveaxis(x, -1, 0)
    return x.reshape(*batch, *x.shape[1:]).astype(dtype)


def filters(name: str, x, alpha):
    """Check filters and alpha, and lay them out.

    Args:
        name: the argument's name, for the error.
        x: filters `(*batch, T, H, W)`.
        alpha: broadcastable to `batch`.

    Returns:
        The filters `(T, H, W, N)`; alpha `(N,)`; and a function from `(N,)` to `(*batch,)` in x's
        dtype.
    """
    x = _floating(name, x)
    if x.ndim < 3:
        raise ValueError(f"{name} must have shape (*batch, T, H, W); got shape {x.shape}")
    if 0 in x.shape[-3:]:
        raise ValueError(f"{name} must have T, H and W of at least 1; got shape {x.shape}")
    batch, alpha = x.shape[:-3], positive(alpha)
    try:
        alpha = jnp.broadcast_to(alpha, batch)
    except ValueError as error:
        raise ValueError(
            f"alpha must be broadcastable to the batch {batch} of {name}; got shape {alpha.shape}"
        ) from error
    alpha = alpha.reshape(-1).astype(compute_dtype(x.dtype))
    return to_pixels(x), alpha, lambda y: y.reshape(batch).astype(x.dtype)


def like(reference: str, x, name: str, y):
    """Check that `y` has the shape of `x`, and lay it out as `(T, H, W, N)`."""
    y = _floating(name, y)
    if y.shape != jnp.shape(x):
        raise ValueError(f"{name} must have the shape {jnp.shape(x)} of {reference}; got {y.shape}")
    return to_pixels(y.astype(jnp.asarray(x).dtype))


def solver(name):
    """Check a solver's name."""
    if name not in _solvers.SOLVERS:
        raise ValueError(f"solver must be one of {sorted(_solvers.SOLVERS)}; got {name!r}")
    return name
