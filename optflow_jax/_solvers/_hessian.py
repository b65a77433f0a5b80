"""The Hessian of L over the flow ("3D ConvNets with Optical Flow Based Regularization", equation
11), sparse.

With the unknown x = (u, v) the paper's Newton step solves

    ( A A' + alpha (I (x) K) ) x = -A c - alpha (f, g),        A = [diag(a); diag(b)]

(f = g = 0 for the minimiser itself). It has twice the unknowns of the dual system. Its condition
number grows with the weights, unlike that of the dual system: float32 cannot solve it where
|w|^2 / alpha is above about 1e4.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from optflow_jax._operators import Smoothness
from optflow_jax._solvers._problem import Problem, dual, pair_dot


class Pattern(NamedTuple):
    """Where the Hessian of one filter has entries; NumPy, sorted by row.

    Attributes:
        rows: of the entries, `(nnz,)`.
        columns: of the entries, `(nnz,)`.
        slots: the entry to which each contribution is added. The contributions are, in this order:
            K for u, K for v, the diagonals of the blocks uu, uv, vu and vv, and the m x m blocks
            uu, uv, vu and vv of the null space.
        smoothness: K's own entries, as rows, columns and values.
    """

    rows: np.ndarray
    columns: np.ndarray
    slots: np.ndarray
    smoothness: tuple[np.ndarray, np.ndarray, np.ndarray]


class System(NamedTuple):
    """The Hessians scaled to a unit diagonal.

    Attributes:
        pattern: the coordinates.
        values: `(N, nnz)`.
        rhs: `(N, 2 n)`.
        scale: `(N, 2 n)`; the flow is `scale` times the solution.
    """

    pattern: Pattern
    values: jax.Array
    rhs: jax.Array
    scale: jax.Array


@functools.lru_cache(maxsize=64)
def _pattern(k: Smoothness) -> Pattern:
    rows, columns, values = k.entries()
    n, m = k.size, k.null
    diagonal, (first, second) = np.arange(n), np.indices((m, m)).reshape(2, -1)
    quarters = [(0, 0), (0, n), (n, 0), (n, n)]
    all_rows = (
        [rows, rows + n] + [diagonal + i for i, _ in quarters] + [first + i for i, _ in quarters]
    )
    all_columns = [columns, columns + n]
    all_columns += [diagonal + j for _, j in quarters] + [second + j for _, j in quarters]
    index = np.concatenate(all_rows) * (2 * n) + np.concatenate(all_columns)
    entries, slots = np.unique(index, return_inverse=True)
    entries, slots = entries.astype(np.int64), slots.astype(np.int32)
    coordinates = (entries // (2 * n)).astype(np.int32), (entries % (2 * n)).astype(np.int32)
    return Pattern(*coordinates, slots, (rows.astype(np.int32), columns.astype(np.int32), values))


def assemble(problem: Problem) -> System:
    """The Hessians and right-hand sides of all filters.

    If K has a null vector e, the Hessian has the null vectors (p e, q e) with p a*e + q b*e = 0.
    The projector onto them is added: it makes the Hessian regular, and its solution the one of
    least norm.
    """
    k = problem.smoothness
    pattern, m = _pattern(k), k.null
    count, dtype = problem.alpha.shape[0], problem.ab.dtype
    a, b = problem.ab[0].T, problem.ab[1].T
    stiffness = problem.alpha[:, None] * jnp.asarray(pattern.smoothness[2], dtype)
    null = jnp.zeros((count, 0), dtype)
    if (constraint := dual(problem).border) is not None:
        projector = constraint.null_projector() * (problem.alpha / m)
        null = jnp.repeat(projector.reshape(4, -1).T, m * m, axis=1)
    parts = [stiffness, stiffness, a * a, a * b, a * b, b * b, null]
    values = jnp.zeros((count, len(pattern.rows)), dtype)
    values = values.at[:, pattern.slots].add(jnp.concatenate(parts, axis=1))
    on_diagonal = np.flatnonzero(pattern.rows == pattern.columns)
    # K alone may have a zero on its diagonal (H = W = 1 without the temporal term).
    diagonal = values[:, on_diagonal]
    scale = jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1))
    values = values * scale[:, pattern.rows] * scale[:, pattern.columns]
    rhs = -problem.ab * problem.c
    if problem.forcing is not None:
        rhs = rhs - problem.alpha * problem.forcing
    rhs = jnp.moveaxis(rhs, -1, 0).reshape(count, -1)
    return System(pattern, values, rhs * scale, scale)


def residual_from_flow(problem: Problem, x):
    """z from the flow `x`, `(N, 2 n)`.

    Each of the three equations of `_problem.py` gives z. Their weighted mean is accurate both where
    brightness constancy is strongly violated (from alpha z = c + a*u + b*v) and where it nearly
    holds (from a*z = -Ku - f).
    """
    rows, columns, values = _pattern(problem.smoothness).smoothness
    uv = jnp.moveaxis(x.reshape(len(x), 2, -1), 0, -1)
    products = jnp.asarray(values, x.dtype)[:, None] * uv[:, columns]
    force = jnp.zeros_like(uv).at[:, rows].add(products)
    if problem.forcing is not None:
        force = force + problem.forcing
    total = problem.c + pair_dot(problem.ab, uv - force)
    return total / (problem.alpha + pair_dot(problem.ab, problem.ab))
