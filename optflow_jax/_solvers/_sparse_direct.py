"""The paper's Newton system, solved by `jax.experimental.sparse.linalg.spsolve`.

This is the paper's method on the device: cuSOLVER's sparse QR on a GPU, without a copy to the
host. On a CPU JAX itself calls back to SciPy. `spsolve` has no batching rule, so the filters form
one block-diagonal system.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.sparse.linalg import spsolve

from optflow_jax._solvers._hessian import assemble, residual_from_flow
from optflow_jax._solvers._problem import Problem, Solution
from optflow_jax._solvers._refine import refine


def solve(problem: Problem) -> Solution:
    """Solve the sparse Hessian systems of all filters as one block-diagonal system.

    Args:
        problem: the systems.

    Returns:
        The solution; `iterations` counts rounds of refinement (see `refine`).
    """
    return refine(problem, _solve_once)


def _solve_once(problem: Problem):
    """z, `(n, N)`, to the accuracy that the Hessian allows."""
    system = assemble(problem)
    count, size = system.rhs.shape
    rows, columns = system.pattern.rows, system.pattern.columns
    blocks = np.arange(count)[:, None]
    together = _spsolve(
        (rows + size * blocks).ravel(),
        (columns + size * blocks).ravel(),
        system.values.ravel(),
        system.rhs.ravel(),
    ).reshape(count, size)

    def one_by_one():
        def one(system):
            return _spsolve(rows, columns, *system)

        return lax.map(one, (system.values, system.rhs))

    # A single singular block spoils the whole block-diagonal system; then every filter is solved
    # alone, and only the singular ones stay NaN.
    x = lax.cond(jnp.all(jnp.isfinite(together)), lambda: together, one_by_one)
    return residual_from_flow(problem, system.scale * x)


def _spsolve(rows, columns, values, rhs):
    """Solve one sparse system; `rows` are sorted NumPy indices."""
    starts = np.searchsorted(rows, np.arange(len(rhs) + 1))
    return spsolve(values, jnp.asarray(columns, jnp.int32), jnp.asarray(starts, jnp.int32), rhs)
