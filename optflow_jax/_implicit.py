"""The minimiser (z, u, v) as a differentiable function of a, b, c and alpha.

The minimiser x = (z, u, v) solves the symmetric system S x = (c, 0, 0) of `_solvers/_problem.py`:

    alpha z - a*u - b*v = c,    -a*z - K u = 0,    -b*z - K v = 0.

By the implicit function theorem, a change of the coefficients changes x by the solution dx of the
same system with another right-hand side,

    S dx = (dc - dalpha z + da*u + db*v,  da*z,  db*z).

This is the derivative rule below. It is linear in the change, so JAX can transpose it for reverse
mode. S is symmetric, so the transposed solve is the same solve. `jax.lax.custom_linear_solve`
differentiates the solve by the same theorem, so both modes and all orders work.

Where K is singular (`temporal=False`, H and W odd), S may be singular too, for example if H = 1.
The solvers then give the u, v of least norm.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optflow_jax import _solvers
from optflow_jax._operators import apply_smoothness, smoothness
from optflow_jax._sharding import alike, numpy_broadcasting, partitioned
from optflow_jax._solvers._problem import Problem


class Minimum(NamedTuple):
    """z, u and v, each `(T, H, W, *batch)`, and the report of the solver.

    Attributes:
        z: the residual of brightness constancy over alpha.
        u, v: the flow.
        converged: whether z, u and v are accurate, `(*batch,)`.
        iterations: `(*batch,)`; see `optflow_jax.Flow`.
    """

    z: jax.Array
    u: jax.Array
    v: jax.Array
    converged: jax.Array
    iterations: jax.Array


def minimise(a, b, c, alpha, temporal: bool, solver: str) -> Minimum:
    """The flow that minimises the optical flow loss, and z, the residual divided by alpha.

    Args:
        a, b, c: the coefficients of brightness constancy, `(T, H, W, *batch)`.
        alpha: `(*batch,)`.
        temporal: whether the flow is smooth in time.
        solver: a key of `_solvers.SOLVERS`.

    Returns:
        The minimum.
    """
    m = _minimise(a, b, c, alpha, temporal, solver)
    return m._replace(converged=m.converged > 0, iterations=m.iterations.astype(jnp.int32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(4, 5))
def _minimise(a, b, c, alpha, temporal: bool, solver: str) -> Minimum:
    """`minimise` with its report as floats: a bool that varies over devices has no tangent type."""
    m = _solve(temporal, solver, False, a, b, alpha, c)
    return m._replace(
        converged=m.converged.astype(c.dtype), iterations=m.iterations.astype(c.dtype)
    )


@_minimise.defjvp
@numpy_broadcasting
def _minimise_jvp(temporal, solver, primals, tangents):
    a, b, _, alpha = primals
    da, db, dc, dalpha = tangents
    out = _minimise(*primals, temporal, solver)
    change = (dc - dalpha * out.z + da * out.u + db * out.v, da * out.z, db * out.z)

    # `custom_linear_solve` needs S to differentiate the solve again.
    def matvec(x):
        z, u, v = x
        return (
            alpha * z - a * u - b * v,
            -a * z - apply_smoothness(u, temporal),
            -b * z - apply_smoothness(v, temporal),
        )

    def solve(_, rhs):
        return _solve(temporal, solver, True, a, b, alpha, *rhs)[:3]

    # Reverse mode needs the transposed solve; S is symmetric, so it is the same solve.
    dz, du, dv = lax.custom_linear_solve(matvec, change, solve, symmetric=True)
    # The report has derivative zero.
    none = jnp.zeros_like(out.converged)
    return out, Minimum(dz, du, dv, none, none)


def _solve(temporal: bool, solver: str, forced: bool, a, b, alpha, c, *forcing) -> Minimum:
    """Solve S x = (c, *forcing); arrays `(T, H, W, *batch)`, alpha `(*batch,)`."""
    if 0 in alpha.shape:  # no filters, nothing to solve
        return Minimum(c, c, c, alpha > 0, alpha.astype(jnp.int32))
    arrays = alike(a, b, alpha[None, None, None], c, *forcing)
    out = _solver(temporal, solver, forced)(*arrays)
    return out._replace(converged=out.converged[0, 0, 0], iterations=out.iterations[0, 0, 0])


@functools.cache
def _solver(temporal: bool, solver: str, forced: bool):
    """The solver as a function of arrays only; each device runs it on its own filters."""
    return each_device(functools.partial(solve_here, temporal, solver, forced))


@numpy_broadcasting
def solve_here(temporal: bool, solver: str, forced: bool, a, b, alpha, c, *forcing) -> Minimum:
    """Solve S x = (c, *forcing) on one device.

    Args:
        temporal: whether the flow is smooth in time.
        solver: a key of `_solvers.SOLVERS`.
        forced: whether `forcing` is given.
        a, b, c: the coefficients of brightness constancy, `(T, H, W, *batch)`.
        alpha: `(1, 1, 1, *batch)`.
        forcing: the right-hand sides of the equations for u and v, `(T, H, W, *batch)`.

    Returns:
        The minimum; its report is `(1, 1, 1, *batch)`.
    """
    # This runs on one device, so all batch axes can be merged into one axis of N filters.
    batch = a.shape[3:]
    flat = [x.reshape(*x.shape[:3], math.prod(batch)) for x in (a, b, alpha, c, *forcing)]
    a, b, alpha, c, *forcing = flat
    alpha = alpha[0, 0, 0]
    problem = _problem(a, b, alpha, c, forcing if forced else None, temporal)
    solution, converged = _solvers.run(problem, solver)
    frames, count = (1 if temporal else len(a)), alpha.shape[0]
    merged = map(problem.smoothness.merge, (solution.z, *solution.uv))
    z, u, v = (_join_frames(x, frames) for x in merged)
    # A filter has converged if all of its frames have.
    converged = jnp.all(converged.reshape(frames, count), axis=0)
    iterations = jnp.max(solution.iterations.reshape(frames, count), axis=0)
    out = Minimum(z, u, v, converged[None, None, None], iterations[None, None, None])
    return jax.tree.map(lambda x: x.reshape(*x.shape[:3], *batch), out)


def each_device(function):
    """Make each device run `function`, of arrays `(T, H, W, *batch)`, on its own filters.

    `vmap` adds one more axis to the batch instead of transforming `function`. So solvers without a
    batching rule work under `vmap`, and a `lax.cond` inside a solver still runs one branch only.

    Args:
        function: see `_sharding.partitioned`.

    Returns:
        The function.
    """

    @jax.custom_batching.custom_vmap
    def solve(*arrays):
        return partitioned(function)(*arrays)

    @solve.def_vmap
    def one_more_axis(size, batched, *arrays):
        arrays = [
            jnp.moveaxis(x, 0, 3) if is_batched else _repeated(x, size)
            for x, is_batched in zip(arrays, batched, strict=True)
        ]
        out = jax.tree.map(lambda x: jnp.moveaxis(x, 3, 0), solve(*arrays))
        return out, jax.tree.map(lambda _: True, out)

    return solve


def _repeated(x, size: int):
    """`(T, H, W, *batch)` to `(T, H, W, size, *batch)`."""
    return jnp.broadcast_to(x[:, :, :, None], (*x.shape[:3], size, *x.shape[3:]))


def _problem(a, b, alpha, c, forcing, temporal: bool) -> Problem:
    """The systems in class order; without the temporal term each frame is a separate system."""
    k = smoothness(*a.shape[:3], temporal)
    frames = 1 if temporal else len(a)
    parts = [k.split(_split_frames(x, frames)) for x in (a, b, c, *(forcing or ()))]
    forced = bool(forcing)
    forcing = jnp.stack(parts[3:]) if forced else None
    alpha = jnp.tile(alpha, frames)
    # The flow has an absolute tolerance, in its own unit; its derivatives have a relative one.
    unit = jnp.zeros_like(alpha) if forced else jnp.ones_like(alpha)
    return Problem(jnp.stack(parts[:2]), alpha, parts[2], forcing, unit, k)


def _split_frames(x, frames: int):
    """`(T, H, W, N)` to `(T / frames, H, W, frames N)`."""
    if frames == 1:
        return x
    return jnp.moveaxis(x, 0, 2).reshape(1, *x.shape[1:3], -1)


def _join_frames(x, frames: int):
    """The inverse of `_split_frames`."""
    if frames == 1:
        return x
    return jnp.moveaxis(x.reshape(*x.shape[1:3], frames, -1), 2, 0)
