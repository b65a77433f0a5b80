"""The paper's Newton system, by `jax.experimental.sparse` and `jax.scipy.sparse.linalg.cg`."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse
from jax.scipy.sparse.linalg import cg

from optflow_jax._solvers._hessian import assemble, residual_from_flow
from optflow_jax._solvers._problem import Problem, Solution, precision
from optflow_jax._solvers._refine import refine

_MAX_ITERATIONS = 2000


def solve(problem: Problem) -> Solution:
    """Solve the sparse Hessian systems by conjugate gradients, each filter to its own tolerance.

    Args:
        problem: the systems.

    Returns:
        The solution; `iterations` counts rounds of refinement (see `refine`), since `jax.scipy`
        does not report its own iterations.
    """
    return refine(problem, _solve_once)


def _solve_once(problem: Problem):
    """z, `(n, N)`, to the accuracy that the Hessian allows."""
    system = assemble(problem)
    size = system.rhs.shape[1]
    indices = np.stack([system.pattern.rows, system.pattern.columns], axis=1).astype(np.int32)

    def one(values, rhs):
        matrix = sparse.BCOO(
            (values, jnp.asarray(indices)),
            shape=(size, size),
            indices_sorted=True,
            unique_indices=True,
        )
        tolerance = precision(rhs.dtype) / 8
        return cg(lambda x: matrix @ x, rhs, tol=tolerance, maxiter=_MAX_ITERATIONS)[0]

    flow = system.scale * jax.vmap(one)(system.values, system.rhs)
    return residual_from_flow(problem, flow)
