"""The paper's Newton system, solved by `jax.experimental.sparse.linalg.spsolve`.

This is the paper's method on the device: cuSOLVER's sparse QR on a GPU, without a copy to the
host. On a CPU JAX itself calls back to SciPy. `spsolve` has no batching rule, so the filters form
one block-diagonal system.
"""

import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse.linalg import spsolve

from optflow_jax._solvers._hessian import assemble, residual_from_flow
from optflow_jax._solvers._problem import Problem, Solution
from optflow_jax._solvers._refine import refine


def solve(problem: Problem) -> Solution:
    """Solve the sparse Hessian systems of all filters as one block-diagonal system.

    Args:
        problem: the systems.

    Returns:
        The solution; `iterations` counts the rounds of refinement.
    """
    return refine(problem, _solve_once)


def _solve_once(problem: Problem):
    """z, `(n, N)`, to the accuracy that the Hessian allows."""
    system = assemble(problem)
    count, size = system.rhs.shape
    blocks = np.arange(count)[:, None]
    columns = (system.pattern.columns + size * blocks).ravel()
    rows = (system.pattern.rows + size * blocks).ravel()
    starts = np.searchsorted(rows, np.arange(count * size + 1))
    x = spsolve(
        system.values.ravel(),
        jnp.asarray(columns, jnp.int32),
        jnp.asarray(starts, jnp.int32),
        system.rhs.ravel(),
    )
    flow = system.scale * x.reshape(count, size)
    return residual_from_flow(problem, flow)
