"""Conjugate gradients on the dual system, matrix-free.

One iteration is one application of K^-1 to a*p and b*p (see `Parity.inverse`) and a few vector
operations, for all filters at once. Each filter has its own step lengths and its own stop. The
system is scaled to a unit diagonal, which bounds its condition number for all weights (see
`_problem.py`): freshly initialised filters of 7 x 7 x 7 need about 5 iterations in float32,
weights of scale 1 about 25, of scale 100 about 45.
"""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from optflow_jax._solvers._problem import Dual, Problem, Solution, dual, precision

# Rounding makes the updated residual drift from the true one. After convergence the true residual
# is computed, and CG restarts where it is too large. This is rare, so a few rounds are enough.
_ROUNDS = 3


class _State(NamedTuple):
    """The carry of the loop in `_conjugate_gradients`.

    Attributes:
        y: the solution so far, `(n, N)`.
        residual: `rhs - matrix y`, updated in each step instead of recomputed, `(n, N)`.
        direction: the search direction, `(n, N)`.
        square: the squared norm of the residual, `(N,)`.
        error: the squared residual in the measure that decides when to stop, `(N,)`.
        iterations: the steps that each filter has taken, `(N,)`.
        steps: the number of steps of the loop.
    """

    y: jnp.ndarray
    residual: jnp.ndarray
    direction: jnp.ndarray
    square: jnp.ndarray
    error: jnp.ndarray
    iterations: jnp.ndarray
    steps: int | jnp.ndarray


def solve(problem: Problem) -> Solution:
    """Solve the systems of all filters by conjugate gradients.

    Args:
        problem: the systems.

    Returns:
        The solution; `iterations` counts the steps of each filter.
    """
    system = dual(problem)
    target = (2 * precision(system.rhs.dtype)) ** 2

    def run(carry):
        # All filters restart, but those that have converged take no step.
        y, residual, image, iterations, rounds = carry
        new, iterations = _conjugate_gradients(system, y, residual, iterations, target)
        # The true residual. Its image K^-1 (a*y, b*y) is kept: the flow is read from it below.
        new_image = system.image(new)
        new_residual = system.project(system.rhs - system.shift * new - system.couple(new_image))
        # Near the limit of rounding another round may do harm; keep the better solution.
        better = system.error(new_residual) <= system.error(residual)
        y, residual = jnp.where(better, new, y), jnp.where(better, new_residual, residual)
        return y, residual, jnp.where(better, new_image, image), iterations, rounds + 1

    def unfinished(carry):
        _, residual, _, _, rounds = carry
        # Rounding may add a factor of 64 (8 in norm); below it another round gains nothing.
        again = jnp.any(system.error(residual) > 64 * target)
        return (rounds == 0) | (rounds < _ROUNDS) & again

    # Without a constraint y starts at zero, so its image and residual need no computation.
    y, image, residual = system.start(), jnp.zeros_like(system.ab), system.rhs
    if system.border is not None:
        image = system.image(y)
        residual = system.project(residual - system.shift * y - system.couple(image))
    carry = y, residual, image, jnp.zeros_like(problem.alpha, jnp.int32), 0
    y, _, image, iterations, _ = lax.while_loop(unfinished, run, carry)
    return Solution(system.scale * y, system.flow(y, image), iterations)


def _conjugate_gradients(system: Dual, y, residual, iterations, target):
    """Run conjugate gradients from `y`, each filter until `system.error(residual) <= target`.

    Args:
        system: the scaled systems.
        y, residual: where to start, and `rhs - matrix y`, `(n, N)`.
        iterations: the steps that each filter has taken before, `(N,)`.
        target: the squared tolerance.

    Returns:
        `y, iterations`.
    """
    # Four times the bound for exact arithmetic, sqrt(condition) / 2 * log(2 / tolerance), and 20.
    limit = 20 + math.ceil(system.smoothness.condition**0.5 * math.log(4 / target))

    def unfinished(state):
        return (state.steps < limit) & jnp.any(state.error > target)

    def step(state):
        # Filters that have converged take steps of length zero, so that the others do not change
        # them. The comparison is False for NaN, so a filter with NaN stops, too.
        active = state.error > target
        image = system.constrained(state.direction)
        curvature = jnp.sum(state.direction * image, axis=0)
        length = jnp.where(active, state.square / jnp.where(active, curvature, 1), 0)
        residual = state.residual - length * image
        # Fletcher-Reeves: makes the next direction conjugate to all earlier ones.
        square = jnp.sum(residual * residual, axis=0)
        ratio = jnp.where(active, square / jnp.where(active, state.square, 1), 0)
        return _State(
            state.y + length * state.direction,
            residual,
            residual + ratio * state.direction,
            square,
            system.error(residual),
            state.iterations + active.astype(jnp.int32),
            state.steps + 1,
        )

    square = jnp.sum(residual * residual, axis=0)
    start = _State(y, residual, residual, square, system.error(residual), iterations, 0)
    state = lax.while_loop(unfinished, step, start)
    return state.y, state.iterations
