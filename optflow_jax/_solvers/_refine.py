"""Iterative refinement: solve, compute the residual, solve for the residual, add.

In float32 a solve with the paper's Hessian may lose all digits at large |w|^2 / alpha, but its
residual can be computed accurately. A round that gives two right digits gives four when repeated.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jax import lax

from optflow_jax._solvers._problem import Problem, Solution, dual

_ROUNDS = 5


def refine(problem: Problem, once: Callable) -> Solution:
    """Solve with `once`, and again for the residual of filters that are not accurate yet.

    Args:
        problem: the systems.
        once: from a `Problem` to an approximate z, `(n, N)`.

    Returns:
        The best solution found; `iterations` counts the rounds after the first that improved a
        filter.
    """
    system = dual(problem)

    def run(state):
        # Solve for the residual of all three equations. Those of u and v are met exactly after the
        # first round, because the flow is recomputed from z below; then their residual is zero.
        solution, left, forcing, rounds = state
        z = solution.z + once(problem._replace(c=left, forcing=forcing))
        # With a singular K, rounding violates the constraint: project z back onto it.
        y = z / system.scale
        if system.border is not None:
            y = system.start() + system.project(y)
        new = Solution(system.scale * y, system.flow(y), solution.iterations + 1)
        new_left = problem.residual(new)
        # Keep the old solution where the new one is no better, or the old one was accurate. In
        # the first round there is no old one. `~(<)` and not `>=`: NaN counts as worse.
        worse = ~(system.error(system.scale * new_left) < system.error(system.scale * left))
        keep = worse & (rounds > 0) | system.accepted(left) & (rounds > 0)
        solution = Solution(*(jnp.where(keep, a, b) for a, b in zip(solution, new, strict=True)))
        forcing = None if forcing is None else jnp.zeros_like(forcing)
        return solution, jnp.where(keep, left, new_left), forcing, rounds + 1

    def unfinished(state):
        _, left, _, rounds = state
        again = ~jnp.all(system.accepted(left))
        return (rounds == 0) | (rounds < _ROUNDS) & again

    none = jnp.full_like(problem.alpha, -1, jnp.int32)
    start = Solution(jnp.zeros_like(problem.c), jnp.zeros_like(problem.ab), none)
    state = start, problem.c, problem.forcing, 0
    return lax.while_loop(unfinished, run, state)[0]
