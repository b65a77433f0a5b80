"""The solvers by name: all `solve(problem) -> Solution`, one per file.

`run` is what the rest of the package calls: it keeps NaN and infinity in their filter, brings
every filter to unit scale, calls the solver and judges the result by the same measure whichever
solver it was.
"""

from collections.abc import Callable

import jax.numpy as jnp

from optflow_jax._solvers import _auto, _cg, _cholesky, _sparse_cg, _sparse_direct
from optflow_jax._solvers._problem import Problem, Solution, judge

SOLVERS: dict[str, Callable[[Problem], Solution]] = {
    "auto": _auto.solve,
    "cg": _cg.solve,
    "cholesky": _cholesky.solve,
    "sparse_cg": _sparse_cg.solve,
    "sparse_direct": _sparse_direct.solve,
}


def run(problem: Problem, name: str):
    """Solve and judge.

    Args:
        problem: the systems of N filters.
        name: a key of `SOLVERS`.

    Returns:
        `solution, converged`, the latter `(N,)` bool.
    """
    finite = jnp.isfinite(problem.alpha) & (problem.alpha > 0)
    # Weights beyond 1e18 in float32 have squares that overflow; they count as infinite.
    squares = jnp.asarray(problem.smoothness.diagonal.max(), problem.ab.dtype) * problem.ab**2
    for x in (squares, problem.c, problem.forcing):
        if x is not None:
            finite &= jnp.all(jnp.isfinite(x), axis=tuple(range(x.ndim - 1)))
    # The solution is linear in the right-hand side: at unit scale no square of it under- or
    # overflows.
    size = jnp.max(jnp.abs(problem.c), axis=0)
    if problem.forcing is not None:
        size = jnp.maximum(size, jnp.max(jnp.abs(problem.forcing), axis=(0, 1)))
    size = jnp.where(finite & (size > 0), size, 1)
    safe = Problem(
        jnp.where(finite, problem.ab, 0),
        jnp.where(finite, problem.alpha, 1),
        jnp.where(finite, problem.c / size, 0),
        None if problem.forcing is None else jnp.where(finite, problem.forcing / size, 0),
        problem.unit / size,
        problem.smoothness,
    )
    solution = SOLVERS[name](safe)
    good = judge(safe, solution)
    if name == "auto":
        solution, good = _auto.rescue(safe, solution, good)
    factor = jnp.where(finite, size, jnp.nan)
    return Solution(solution.z * factor, solution.uv * factor, solution.iterations), finite & good
