"""The OptFlow regularizer: R(W) = min over (U, V) of L(W, U, V), its flow and its derivatives.

"3D ConvNets with Optical Flow Based Regularization", equations 4, 5 and 13.

The derivative rule. With (U*, V*) the minimiser, R(W) = L(W, U*(W), V*(W)), and

    dR/dW = dL/dW + (dU*/dW)' dL/dU + (dV*/dW)' dL/dV = dL/dW,

since dL/dU = dL/dV = 0 at the minimiser: the envelope theorem. In the same way dR/dalpha = (U'KU +
V'KV) / 2. The backward pass is these two formulas, a few differences of arrays that the forward
pass left; no second solve. They are functions of U*, V* and the residual, whose own derivatives
come from the implicit function theorem (`_implicit.py`); that is how derivatives of second and
higher order are right.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from optflow_jax import _arguments
from optflow_jax._implicit import Minimum, minimise
from optflow_jax._objective import brightness, envelope, roughness


class Flow(NamedTuple):
    """The optimal flow of filters, and how it was found; see `flow`.

    Attributes:
        u: horizontal flow in pixels per frame, `(*batch, T, H, W)`.
        v: vertical flow in pixels per frame, `(*batch, T, H, W)`.
        residual: what is left of brightness constancy, a*u + b*v + c, `(*batch, T, H, W)`.
        cost: R(W), `(*batch,)`.
        converged: whether the numbers are to be trusted, `(*batch,)` bool.
        iterations: of "cg"; of refinement for the sparse solvers; 0 for "cholesky"; `(*batch,)`.
    """

    u: jax.Array
    v: jax.Array
    residual: jax.Array
    cost: jax.Array
    converged: jax.Array
    iterations: jax.Array


def _value(alpha, coefficients, m: Minimum):
    """R from z, `(N,)`.

    R is the maximum over z of alpha (c'z - z'Mz / 2), Mz = alpha z - a*u - b*v: an error of z
    enters squared.
    """
    a, b, c = coefficients
    half = 0.5 * m.z * (alpha * m.z - a * m.u - b * m.v)
    return alpha * jnp.sum(m.z * c - half, axis=(0, 1, 2))


def _evaluate(w, alpha, temporal, solver):
    """The cost, NaN where it is not to be trusted, and what its derivative needs."""
    coefficients = brightness(w)
    m = minimise(*coefficients, alpha, temporal, solver)
    value = jnp.where(m.converged, _value(alpha, coefficients, m), jnp.nan)
    return value, (m.u, m.v, jnp.where(m.converged, alpha * m.z, jnp.nan))


def _slopes(state, temporal):
    """dR/dW, `(T, H, W, N)`, and dR/dalpha, `(N,)`, by the envelope theorem."""
    u, v, r = state
    return envelope(u, v, r), 0.5 * (roughness(u, temporal) + roughness(v, temporal))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _reverse(w, alpha, temporal, solver):
    return _evaluate(w, alpha, temporal, solver)[0]


def _reverse_fwd(w, alpha, temporal, solver):
    return _evaluate(w, alpha, temporal, solver)


def _reverse_bwd(temporal, solver, state, cotangent):
    dw, dalpha = _slopes(state, temporal)
    return cotangent * dw, cotangent * dalpha


_reverse.defvjp(_reverse_fwd, _reverse_bwd)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def _forward(w, alpha, temporal, solver):
    return _evaluate(w, alpha, temporal, solver)[0]


@_forward.defjvp
def _forward_jvp(temporal, solver, primals, tangents):
    value, state = _evaluate(*primals, temporal, solver)
    dw, dalpha = _slopes(state, temporal)
    return value, jnp.sum(dw * tangents[0], axis=(0, 1, 2)) + dalpha * tangents[1]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _flow(w, alpha, temporal, solver):
    coefficients = brightness(w)
    m = minimise(*coefficients, alpha, temporal, solver)
    return m, alpha * m.z, _value(alpha, coefficients, m)


# Compiled here so that a call outside `jax.jit` is one program too.
_reverse_compiled = jax.jit(_reverse, static_argnums=(2, 3))
_forward_compiled = jax.jit(_forward, static_argnums=(2, 3))


def cost(filters, *, alpha=1.0, temporal=True, solver="auto"):
    """R(W), the least optical flow loss of each filter over all flows (equation 4), by the solver
    `solver`.

    Its gradient is the envelope theorem's (equation 5) and costs no second solve. Reverse mode of
    any order works (`jax.grad` of `jax.grad`, Hessian-vector products by reverse over reverse,
    forward over reverse); forward mode of the function itself does not, as always with
    `jax.custom_vjp`: use `cost_forward` for that.

    Accuracy. In float32 cost and gradient are within 1e-5 relative (of gradients in norm, filter by
    filter) of float64 for weights of scale 1e-3 to 1e2, alpha of 1e-2 to 1e2 and sizes of 1 to 16
    with "auto", "cg" and "cholesky". The paper's Hessian, which the sparse solvers work on, is too
    ill-conditioned for float32 where |w|^2 / alpha is beyond about 1e4 (and, with `temporal=False`
    and odd H and W, below about 1e-3); most filters still succeed there by refinement. Weights
    whose squares overflow, beyond about 1e18, count as infinite.

    A filter whose solution is not accurate has NaN for cost and gradient, as has a filter that
    contains NaN or infinity; the others are not touched. `flow` tells which ones by `converged`,
    and gives the numbers that there are.

    "sparse_direct" calls back to SciPy on a CPU, which is JAX's own doing. For float64 there, set
    `jax_enable_x64` globally: the callback's thread does not see a local `jax.enable_x64`.

    Args:
        filters: W, `(*batch, T, H, W)`, floating; bfloat16 and float16 are computed in float32.
        alpha: the weight of smoothness, positive, broadcastable to `batch`; may be traced and
            differentiated. Choose it by the scale of the weights: R(s W; s^2 alpha) = s^2 R(W;
            alpha), and where alpha is far above the mean square of the weights the flow explains
            next to nothing and R is half the squared difference of successive frames.
        temporal: whether the flow is to be smooth in time as well as in space.
        solver: "auto", "cg", "cholesky", "sparse_cg" or "sparse_direct".

    Returns:
        The costs, `(*batch,)`, in the filters' dtype.

    Raises:
        ValueError: for filters of less than three axes or of a dtype that is not floating, an
            `alpha` that is not positive or does not broadcast to `batch`, or an unknown solver.

    Example:
        >>> filters = jax.random.normal(jax.random.key(0), (16, 7, 7, 7))
        >>> jax.grad(lambda w: optflow_jax.cost(w).mean())(filters).shape
        (16, 7, 7, 7)
    """
    solver = _arguments.solver(solver)
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    return restore(_reverse_compiled(w, alpha, bool(temporal), solver))


def cost_forward(filters, *, alpha=1.0, temporal=True, solver="auto"):
    """`cost`, differentiable in forward mode too: `jax.jvp`, `jax.linearize`, `jax.hessian`,
    `jax.jacfwd`.

    The same code and numbers as `cost` under a `jax.custom_jvp` in place of the `jax.custom_vjp`:
    its tangent is the inner product of the envelope theorem's gradient with the change, so it is
    transposable, and reverse mode works as well.

    Args:
        filters: as for `cost`.
        alpha: as for `cost`.
        temporal: as for `cost`.
        solver: as for `cost`.

    Returns:
        The costs, `(*batch,)`, in the filters' dtype.

    Raises:
        ValueError: as `cost` does.

    Example:
        >>> w = jnp.ones((3, 4, 5))
        >>> jax.hessian(optflow_jax.cost_forward)(w).shape
        (3, 4, 5, 3, 4, 5)
    """
    solver = _arguments.solver(solver)
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    return restore(_forward_compiled(w, alpha, bool(temporal), solver))


def flow(filters, *, alpha=1.0, temporal=True, solver="auto"):
    """The flow that minimises the optical flow loss of each filter, and the report of the solver.

    Everything in it is differentiable, in both modes, by the implicit function theorem. With
    `temporal=False` and odd H and W the flow is not unique; the one of least norm is returned.

    Args:
        filters: as for `cost`.
        alpha: as for `cost`.
        temporal: as for `cost`.
        solver: as for `cost`.

    Returns:
        A `Flow`. Where `converged` is False its numbers are the best the solver could do (NaN for
        a filter that is not finite), and `cost` says NaN.

    Raises:
        ValueError: as `cost` does.

    Example:
        >>> found = optflow_jax.flow(jnp.ones((2, 3, 5, 5)))
        >>> found.u.shape, found.converged.tolist()
        ((2, 3, 5, 5), [True, True])
    """
    solver = _arguments.solver(solver)
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    shape, dtype = jnp.shape(filters), jnp.asarray(filters).dtype
    m, residual, value = _flow(w, alpha, bool(temporal), solver)
    pixels = [_arguments.from_pixels(x, shape[:-3], dtype) for x in (m.u, m.v, residual)]
    report = [x.reshape(shape[:-3]) for x in (m.converged, m.iterations)]
    return Flow(*pixels, restore(value), *report)
