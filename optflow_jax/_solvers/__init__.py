"""The solvers by name, and how they are run.

`run` is what the rest of the package calls: it keeps NaN and infinity in their filter, brings
every filter to unit scale, tries the solvers of a name in order and judges the result by the same
measure whichever solver it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.export
import jax.numpy as jnp
from jax import lax

from optflow_jax._solvers import _cg, _cholesky
from optflow_jax._solvers._problem import Problem, Solution, judge


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
        up_to: the largest parity class, in pixels, that it is used for as a second or later step.
    """

    solve: Callable[[Problem], Solution]
    up_to: float = float("inf")


_CG = Step(_cg.solve)
# A class of 2048 pixels takes 17 MB in float32 to factor, and seconds on a laptop.
_CHOLESKY = Step(_cholesky.solve, up_to=2048)

# Each name stands for steps that are tried in order, the later ones for the filters that the
# earlier ones left unsolved. "auto" begins with "cg" on a CPU: there it is faster than "cholesky"
# for every set of filters of `python -m experiments.benchmarks.optflow`, 3 to 20 times for weights
# of freshly initialised or trained networks. On an accelerator see `_steps`.
SOLVERS: dict[str, tuple[Step, ...]] = {
    "auto": (_CG, _CHOLESKY),
    "cg": (_CG,),
    "cholesky": (_CHOLESKY,),
    "sparse_cg": (Step(_solve_sparse_cg),),
    "sparse_direct": (Step(_solve_sparse_direct),),
}


# The largest parity class, in pixels, and the most elements of all matrices together, for which
# "auto" factors at once on an accelerator. Not measured yet on any.
_DIRECT_PIXELS, _DIRECT_ELEMENTS = 256, 2**27


def _steps(name: str, classes: list[int], filters: Any) -> tuple[Step, ...]:
    """The steps of a solver on this backend.

    On an accelerator a loop until all have converged makes the host read a predicate after every
    iteration, and a fallback makes it read one more; inside a scan of training steps it then waits
    for every step. So small systems are factored at once, which needs neither: 59 launches for 64
    filters of 7x7x7, against 73 and 20 or so for each iteration (counted in the program compiled
    for an H100, `python -m experiments.benchmarks.gpu_compile`).

    Args:
        name: a key of `SOLVERS`.
        classes: pixels of each parity class.
        filters: the number of systems, an integer or a symbolic dimension.
    """
    if name != "auto" or jax.default_backend() == "cpu":
        return SOLVERS[name]
    # An exported program may leave the number of filters open: it may then be large.
    known = not jax.export.is_symbolic_dim(filters)
    elements = sum(size**2 for size in classes)
    if known and max(classes) <= _DIRECT_PIXELS and filters * elements <= _DIRECT_ELEMENTS:
        return (_CHOLESKY,)
    return SOLVERS[name]


def run(problem: Problem, name: str) -> tuple[Solution, jax.Array]:
    """Solve and judge.

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
    classes = [parity.size for parity in safe.smoothness.classes]
    first, *others = _steps(name, classes, problem.alpha.shape[0])
    solution = first.solve(safe)
    good = judge(safe, solution)
    for step in others:
        if max(classes) <= step.up_to:
            solution, good = _rescue(safe, step, solution, good)
    factor = jnp.where(finite, size, jnp.nan)
    return Solution(solution.z * factor, solution.uv * factor, solution.iterations), finite & good


def _rescue(problem: Problem, step: Step, first: Solution, good):
    """Solve by `step` what was not solved before.

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

    # A branch and not a `where`: the second program is only run where a filter needs it.
    return lax.cond(jnp.all(good), lambda: (first, good), fall_back)
