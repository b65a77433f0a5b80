"""Cholesky factorisation of the dual system, one parity class at a time.

The four classes of pixels (y mod 2, x mod 2) are not coupled (see `_operators.py`), so the n x n
matrix of a filter is block diagonal: for 7 x 7 x 7, n = 343 splits into 112, 84, 84 and 63, and the
factorisation costs 14 times less.
"""

import functools

import jax.numpy as jnp
from jax import lax
from jax.scipy.linalg import cho_solve

from optflow_jax._operators import matmul
from optflow_jax._solvers._problem import Problem, Solution, dual


def solve(problem: Problem) -> Solution:
    """Solve the systems of all filters by Cholesky factorisation.

    Args:
        problem: the systems.

    Returns:
        The solution; `iterations` is 0.
    """
    system = dual(problem)
    by_class = system.smoothness.by_class
    parts = []
    for index, parity in enumerate(system.smoothness.classes):
        pieces = (*system.ab, system.shift, system.rhs)
        a, b, shift, rhs = (by_class(x)[index].T for x in pieces)
        ab = jnp.stack([a, b], axis=-1)
        columns, inverse = rhs[..., None], parity.inverse_matrix(ab.dtype)
        basis = None
        if system.border is not None and index == 0:
            basis = jnp.moveaxis(system.border.basis, -1, 0)
            columns = jnp.concatenate([columns, basis], axis=-1)
            # K^+ is singular, and alpha alone may be too small for a factorisation in float32. With
            # e the null vector of K, e e' added to K^+ adds a multiple of E E', E = [a e, b e], to
            # the matrix. This does not change y, since E'y is fixed, and makes the matrix as well
            # conditioned as that of a regular class.
            inverse = inverse + parity.diagonal.mean().astype(inverse.dtype)
        # On a CPU a batched LAPACK call spreads the batch over the thread pool that runs the
        # program, and blocks until it is done. As many such calls at a time as there are threads
        # wait for each other forever (seen with the four classes on two cores, jaxlib 0.10.2).
        # Calls with one matrix each do not block, and they are as fast.
        one_at_a_time = functools.partial(_one_at_a_time, inverse)
        together = functools.partial(_factor_and_solve, inverse)
        y = lax.platform_dependent(ab, shift, columns, cpu=one_at_a_time, default=together)
        parts.append((y[..., 0] if basis is None else _constrain(basis, y, system.level)).T)
    y = jnp.concatenate(parts)
    return Solution(system.scale * y, system.flow(y), jnp.zeros_like(problem.alpha, jnp.int32))


def _one_at_a_time(inverse, *arrays):
    return lax.map(lambda xs: _factor_and_solve(inverse, *xs), arrays)


def _factor_and_solve(inverse, ab, shift, columns):
    """Solve `(diag(shift) + K^-1 o sum ab ab') y = columns`, or many along leading axes."""
    matrix = inverse * matmul(ab, jnp.swapaxes(ab, -1, -2))
    matrix = matrix + jnp.eye(len(inverse), dtype=ab.dtype) * shift[..., None]
    return cho_solve((lax.linalg.cholesky(matrix, symmetrize_input=False), True), columns)


def _constrain(basis, solved, level):
    """From M^-1 rhs and M^-1 Q, the y = M^-1 (rhs - Q mu) with Q'y = level."""
    product = matmul(jnp.swapaxes(basis, 1, 2), solved)
    schur = product[..., 1:]
    # A zero column of Q (rank below two) is no constraint: make its multiplier 0.
    empty = jnp.sum(basis**2, axis=1) == 0
    schur = schur + jnp.eye(2, dtype=schur.dtype) * empty[:, None].astype(schur.dtype)
    (a, b), (_, d) = jnp.moveaxis(schur, (1, 2), (0, 1))
    p, q = (product[..., 0] - level.T).T
    determinant = a * d - b * b
    mu = jnp.stack([d * p - b * q, a * q - b * p], axis=-1) / determinant[:, None]
    return solved[..., 0] - matmul(solved[..., 1:], mu[..., None])[..., 0]
