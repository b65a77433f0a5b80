"""The solver that is used unless another is asked for.

Measured on CPU (`python -m experiments.bench_optflow`), "cg" is faster than "cholesky" for every
set of filters there, 3 to 20 times for weights of freshly initialised or trained networks. So
"auto" is "cg"; and where that leaves a filter unsolved, "cholesky" takes over for that filter. The
second program only runs when it is needed.
"""

import jax.numpy as jnp
from jax import lax

from optflow_jax._solvers import _cg, _cholesky
from optflow_jax._solvers._problem import Problem, Solution, dual

# A class of 2048 pixels takes 17 MB in float32 to factor, and seconds on a laptop; beyond that
# stay with "cg".
_FACTOR_UP_TO = 2048


def solve(problem: Problem) -> Solution:
    """Solve by "cg", and by "cholesky" what "cg" could not.

    Args:
        problem: the systems.

    Returns:
        The solution.
    """
    first = _cg.solve(problem)
    if max(c.size for c in problem.smoothness.classes) > _FACTOR_UP_TO:
        return first
    good = dual(problem).accepted(problem.residual(first))

    def fall_back():
        second = _cholesky.solve(problem)
        return Solution(
            jnp.where(good, first.z, second.z),
            jnp.where(good, first.uv, second.uv),
            first.iterations,
        )

    return lax.cond(jnp.all(good), lambda: first, fall_back)
