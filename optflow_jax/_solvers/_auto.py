"""The solver that is used unless another is asked for.

Measured on CPU (`python -m experiments.bench_optflow`), "cg" is faster than "cholesky" for every
set of filters there, 3 to 20 times for weights of freshly initialised or trained networks. So
"auto" is "cg"; and where that leaves a filter unsolved, "cholesky" takes over for that filter. The
second program only runs when it is needed.
"""

import jax.numpy as jnp
from jax import lax

from optflow_jax._solvers import _cg, _cholesky
from optflow_jax._solvers._problem import Problem, Solution, judge

# A class of 2048 pixels takes 17 MB in float32 to factor, and seconds on a laptop; beyond that
# stay with "cg".
_FACTOR_UP_TO = 2048

solve = _cg.solve


def rescue(problem: Problem, first: Solution, good):
    """Solve by "cholesky" what "cg" could not.

    Args:
        problem: the systems.
        first: the solution by `solve`.
        good: which filters it solves, `(N,)` bool.

    Returns:
        The solution, and which filters it solves.
    """
    if max(c.size for c in problem.smoothness.classes) > _FACTOR_UP_TO:
        return first, good

    def fall_back():
        second = _cholesky.solve(problem)
        solution = Solution(
            jnp.where(good, first.z, second.z),
            jnp.where(good, first.uv, second.uv),
            first.iterations,
        )
        return solution, good | judge(problem, second)

    return lax.cond(jnp.all(good), lambda: (first, good), fall_back)
