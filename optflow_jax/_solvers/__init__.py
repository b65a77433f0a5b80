"""The solvers by name, and how they are run.

The rest of the package calls `run`. It keeps NaN and infinity within their filter, scales every
right-hand side to unit size, tries the solvers of a name in order, and checks the result by the
same measure for every solver.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import lax

from optflow_jax import _thresholds
from optflow_jax._solvers import _cg, _cholesky
from optflow_jax._solvers._problem import Problem, Solution, judge
from optflow_jax._thresholds import Threshold, value_of


def _solve_sparse_cg(problem: Problem) -> Solution:
    # Importing jax.experimental.sparse takes 0.3 s, so wait until a sparse solver is used.
    from optflow_jax._solvers import _sparse_cg

    return _sparse_cg.solve(problem)


def _solve_sparse_direct(problem: Problem) -> Solution:
    from optflow_jax._solvers import _sparse_direct

    return _sparse_direct.solve(problem)


class Step(NamedTuple):
    """One way to solve.

    Attributes:
        solve: from a `Problem` to a `Solution`.
        up_to: by backend, the largest parity class, in pixels, for which it is used as a second or
            later step; None for no limit.
    """

    solve: Callable[[Problem], Solution]
    up_to: dict[str, Threshold] | None = None


_CG = Step(_cg.solve)
_CHOLESKY = Step(_cholesky.solve, _thresholds.RESCUE_PIXELS)

# Each name stands for steps that are tried in order, the later ones for the filters that the
# earlier ones left unsolved. On a CPU "auto" begins with "cg", which is faster there than
# "cholesky" for every set of filters of `python -m experiments.benchmarks.optflow`: 3 to 20 times
# for weights of freshly initialised or trained networks. For accelerators see `_steps`.
SOLVERS: dict[str, tuple[Step, ...]] = {
    "auto": (_CG, _CHOLESKY),
    "cg": (_CG,),
    "cholesky": (_CHOLESKY,),
    "sparse_cg": (Step(_solve_sparse_cg),),
    "sparse_direct": (Step(_solve_sparse_direct),),
}


def _steps(name: str, classes: list[int], filters: Any) -> tuple[Step, ...]:
    """The steps of a solver on this backend.

    On an accelerator a loop until all filters have converged makes the host read a predicate after
    every iteration, and a fallback makes it read one more, so inside a scan of training steps the
    host waits in every step. A factorisation needs neither, so "auto" factors small systems at
    once: 59 launches for 64 filters of 7 x 7 x 7, against 73 and about 20 for each iteration
    (counted in the program compiled for an H100, `python -m experiments.benchmarks.gpu_compile`).

    Args:
        name: a key of `SOLVERS`.
        classes: pixels of each parity class.
        filters: the number of systems, an integer or a symbolic dimension.
    """
    if name != "auto" or max(classes) > value_of(_thresholds.DIRECT_PIXELS):
        return SOLVERS[name]
    # An exported program may leave the number of filters open, so it may be large.
    known = not jax.export.is_symbolic_dim(filters)
    elements = sum(size**2 for size in classes)
    if known and filters * elements <= value_of(_thresholds.DIRECT_ELEMENTS):
        return (_CHOLESKY,)
    return SOLVERS[name]


def run(problem: Problem, name: str) -> tuple[Solution, jax.Array]:
    """Solve the systems, and check which solutions are accurate.

    Args:
        problem: the systems.
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
    # The solution is linear in the right-hand side, so solve at unit scale, where squares neither
    # underflow nor overflow.
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
    classes = [parity.size for parity in safe.smoothness.classes]
    first, *others = _steps(name, classes, problem.alpha.shape[0])
    solution = first.solve(safe)
    good = judge(safe, solution)
    for step in others:
        if step.up_to is None or max(classes) <= value_of(step.up_to):
            solution, good = _rescue(safe, step, solution, good)
    factor = jnp.where(finite, size, jnp.nan)
    return Solution(solution.z * factor, solution.uv * factor, solution.iterations), finite & good


def _rescue(problem: Problem, step: Step, first: Solution, good):
    """Solve by `step` the systems that are not solved yet.

    Args:
        problem: the systems.
        step: the next way to solve.
        first: the solution so far.
        good: which systems it solves, `(N,)` bool.

    Returns:
        The solution, and which systems it solves.
    """

    def fall_back():
        second = step.solve(problem)
        solution = Solution(
            jnp.where(good, first.z, second.z),
            jnp.where(good, first.uv, second.uv),
            first.iterations,
        )
        return solution, good | judge(problem, second)

    # `lax.cond` and not `where`: the second program runs only if a filter needs it.
    return lax.cond(jnp.all(good), lambda: (first, good), fall_back)
