"""The OptFlow regularizer: R(W) = min over (U, V) of L(W, U, V), its flow and its derivatives.

"3D ConvNets with Optical Flow Based Regularization", equations 4, 5 and 13.

The derivative rule. With (U*, V*) the minimiser, R(W) = L(W, U*(W), V*(W)), and

    dR/dW = dL/dW + (dU*/dW)' dL/dU + (dV*/dW)' dL/dV = dL/dW,

since dL/dU = dL/dV = 0 at the minimiser (the envelope theorem). In the same way dR/dalpha = (U'KU
+ V'KV) / 2. The backward pass evaluates these two formulas: a few differences of arrays that the
forward pass has stored, and no second solve. The formulas contain U*, V* and the residual. The
derivatives of these come from the implicit function theorem (`_implicit.py`), so derivatives of
second and higher order are right, too.

The chain of calls from `cost` to a solver:

    cost, cost_forward, flow                  public; arrays (*batch, T, H, W)
      _arguments.filters                      check; lay out as (T, H, W, *batch)
      _sharding.whole_pixels                  Explicit mesh: no device has a part of a filter
        _cost_reverse, _cost                  the derivative rules of R (this file)
          _objective.brightness               W -> a, b, c
          _implicit.minimise                  a, b, c -> z, u, v, and their derivative rule
            _sharding.partitioned             each device takes its own filters
              Smoothness.split                pixels -> the four parity classes; batch -> N filters
              _solvers.run                    scale each filter, try solvers in order, check
                _cg, _cholesky, ...           solve(Problem) -> Solution
          _objective.attained, slopes         R, dR/dW and dR/dalpha
          _tiny.corrected                     the smallest filters only: recompute in float64
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from optflow_jax import _arguments
from optflow_jax._implicit import minimise
from optflow_jax._objective import attained, brightness, slopes
from optflow_jax._sharding import numpy_broadcasting, whole_pixels
from optflow_jax._tiny import corrected, is_tiny

if TYPE_CHECKING:
    from jax.typing import ArrayLike
    from jaxtyping import Array, Bool, Float, Int

    from optflow_jax._arguments import OnFailure, Solver


class Flow(NamedTuple):
    """The optimal flow of filters, and how it was found; see `flow`.

    Attributes:
        u: horizontal flow, `(*batch, T, H, W)`: half the displacement to the right, in pixels per
            frame. The paper's difference D is w[x+1] - w[x-1] without the factor 1/2, twice a
            derivative, so its flow is half of what moves.
        v: vertical flow, `(*batch, T, H, W)`: half the displacement downwards.
        residual: the violation of brightness constancy, a*u + b*v + c, `(*batch, T, H, W)`.
        cost: R(W), `(*batch,)`.
        converged: whether the numbers are accurate, `(*batch,)` bool.
        iterations: `(*batch,)`; steps of conjugate gradients; for the sparse solvers, rounds of
            refinement that improved the filter; 0 for "cholesky".

    Borders. Pixels outside count as 0: D is w[1] in the first column or row and -w[N-2] in the
    last, which is no derivative, and the difference in time is -w in the last frame. What is found
    there is not a displacement; smoothness carries some of it inwards.

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> found = optflow_jax.flow(jnp.ones((2, 3, 5, 5)))
        >>> found.v.shape, found.cost.shape
        ((2, 3, 5, 5), (2,))
        >>> dx, dy = found.displacement
    """

    u: Float[Array, "*batch T H W"]
    v: Float[Array, "*batch T H W"]
    residual: Float[Array, "*batch T H W"]
    cost: Float[Array, "*batch"]
    converged: Bool[Array, "*batch"]
    iterations: Int[Array, "*batch"]

    @property
    def displacement(self) -> tuple[Float[Array, "*batch T H W"], Float[Array, "*batch T H W"]]:
        """(dx, dy): how far each pixel moves to the right and downwards, in pixels per frame."""
        return 2 * self.u, 2 * self.v


def _evaluate(w, alpha, temporal, solver, on_failure):
    """The cost, whether it is accurate, and its slopes dR/dW and dR/dalpha.

    A filter whose solution is not accurate gets NaN for cost and residual, hence for the gradient.
    With `on_failure="drop"` it gets zeros instead.
    """
    a, b, c = brightness(w)
    m = minimise(a, b, c, alpha, temporal, solver)
    given = w, alpha
    if on_failure == "drop":
        # 0 times NaN is NaN: replace every array of such a filter that enters cost and slopes.
        z, u, v = (jnp.where(m.converged, x, 0) for x in (m.z, m.u, m.v))
        m = m._replace(z=z, u=u, v=v)
        a, b, c = (jnp.where(m.converged, x, 0) for x in (a, b, c))
        alpha = jnp.where(m.converged, alpha, 1)
        cost, r = attained(a, b, c, alpha, m.z, m.u, m.v), alpha * m.z
    else:
        cost = jnp.where(m.converged, attained(a, b, c, alpha, m.z, m.u, m.v), jnp.nan)
        r = jnp.where(m.converged, alpha * m.z, jnp.nan)
    out = cost, *slopes(m.u, m.v, r, temporal)
    if is_tiny(w, temporal):
        out = corrected(*given, temporal, m.converged, out)
    return out, m.converged


# The derivative rule is written once, for forward mode: JAX transposes it to reverse mode, since
# the tangent is linear in the change.
@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3, 4))
def _cost(w, alpha, temporal, solver, on_failure):
    """The cost, and 1 where it is accurate, else 0: a float, since bools have no tangent."""
    (value, _, _), converged = _evaluate(w, alpha, temporal, solver, on_failure)
    return value, converged.astype(value.dtype)


@_cost.defjvp
@numpy_broadcasting
def _cost_jvp(temporal, solver, on_failure, primals, tangents):
    w, alpha = primals
    (value, dw, dalpha), converged = _evaluate(w, alpha, temporal, solver, on_failure)
    change = jnp.sum(dw * tangents[0], axis=(0, 1, 2)) + dalpha * tangents[1]
    converged = converged.astype(value.dtype)
    return (value, converged), (change, jnp.zeros_like(converged))


# `cost` is a `jax.custom_vjp`: JAX refuses its forward mode, which `cost_forward` offers.
@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _cost_reverse(w, alpha, temporal, solver, on_failure):
    return _cost(w, alpha, temporal, solver, on_failure)


def _cost_reverse_fwd(w, alpha, temporal, solver, on_failure):
    def value_first(w, alpha):
        return _cost(w, alpha, temporal, solver, on_failure)

    value, pull_back, converged = jax.vjp(value_first, w, alpha, has_aux=True)
    return (value, converged), pull_back


def _cost_reverse_bwd(temporal, solver, on_failure, pull_back, cotangents):
    return pull_back(cotangents[0])


_cost_reverse.defvjp(_cost_reverse_fwd, _cost_reverse_bwd)


# Compiled here so that a call outside `jax.jit` runs as one program, too.
@functools.partial(jax.jit, static_argnums=(0, 3, 4, 5))
@numpy_broadcasting
def _costs(rule, w, alpha, temporal, solver, on_failure):
    """The costs by a rule (`_cost` or `_cost_reverse`), and which are accurate, `(*batch,)`."""

    return rule(*whole_pixels(w, alpha), temporal, solver, on_failure)


@functools.partial(jax.jit, static_argnums=(2, 3))
@numpy_broadcasting
def _flow(w, alpha, temporal, solver):
    """(u, v, residual), and (cost, converged, iterations)."""

    w, alpha = whole_pixels(w, alpha)
    a, b, c = brightness(w)
    m = minimise(a, b, c, alpha, temporal, solver)
    value = attained(a, b, c, alpha, m.z, m.u, m.v)
    if is_tiny(w, temporal):
        (value,) = corrected(w, alpha, temporal, m.converged, (value,))
    return (m.u, m.v, alpha * m.z), (value, m.converged, m.iterations)


def _checked_costs(rule, filters, alpha, temporal, solver, on_failure):
    """What `cost` and `cost_forward` share: check, solve, and give the costs the filters' dtype.

    Returns:
        The costs, and which are accurate, both `(*batch,)`.
    """
    options = _arguments.options(temporal, solver, on_failure)
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    values, converged = _costs(rule, w, alpha, *options)
    return restore(values), converged > 0


def cost_and_success(filters, alpha, temporal, solver, on_failure):
    """`cost`, and which of the costs are accurate."""
    return _checked_costs(_cost_reverse, filters, alpha, temporal, solver, on_failure)


def cost(
    filters: Float[ArrayLike, "*batch T H W"],
    *,
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
    solver: Solver = "auto",
    on_failure: OnFailure = "nan",
) -> Float[Array, "*batch"]:
    """R(W), the least optical flow loss of each filter over all flows (equation 4).

    The gradient comes from the envelope theorem (equation 5) and needs no second solve. Reverse
    mode of any order works: `jax.grad` of `jax.grad`, and Hessian-vector products by reverse over
    reverse or forward over reverse. Forward mode of the function itself does not work, as for every
    `jax.custom_vjp`; use `cost_forward` for it.

    Accuracy. In float32 the relative error of cost and gradient (its norm, filter by filter) is at
    most 1e-5 for weights of scale 1e-3 to 1e2, alpha of 1e-2 to 1e2 and T, H, W of 1 to 16 with
    "auto", "cg" and "cholesky". Very small frames (up to 4 x 4 or 1 x 8 pixels, say) are also
    solved in float64 if T = 1 or `temporal=False`, because the terms of their gradient may cancel.
    The sparse solvers work on the paper's Hessian, which is too ill-conditioned for float32 where
    |w|^2 / alpha is above about 1e4 (and, with `temporal=False` and odd H and W, below about 1e-3);
    refinement still makes most filters accurate there. Weights above about 1e18, whose squares
    overflow in float32, count as infinite.

    Cost and gradient are NaN for a filter without an accurate solution, and for a filter that
    contains NaN or infinity; with `on_failure="drop"` they are zero. Other filters are not
    affected. `flow` reports such filters as not `converged`, with the numbers that were found.

    Devices. Filters may be sharded over devices along any batch axis, on Auto and Explicit meshes
    and in `jax.shard_map`: each device solves its own filters, without communication. Sharded
    pixels are gathered first.

    On a CPU JAX implements "sparse_direct" by a callback to SciPy. For float64 there, set
    `jax_enable_x64` globally: the callback's thread does not see a local `jax.enable_x64`.

    Args:
        filters: W, `(*batch, T, H, W)`, floating; bfloat16 and float16 are computed in float32.
        alpha: the weight of smoothness, positive and finite, broadcastable to `batch`; may be
            traced and differentiated. Choose it by the scale of the weights: R(s W; s^2 alpha) =
            s^2 R(W; alpha). Where alpha is far above the mean square of the weights, the flow
            explains next to nothing, and R is nearly half the sum of the squared differences of
            successive frames.
        temporal: whether the flow is smooth in time as well as in space.
        solver: "auto", "cg", "cholesky", "sparse_cg" or "sparse_direct".
        on_failure: what a filter without an accurate solution gets: "nan", NaN; "drop", zero cost
            and zero gradient.

    Returns:
        The costs, `(*batch,)`, in the filters' dtype.

    Raises:
        ValueError: if the filters have fewer than three axes or a dtype that is not floating, if
            `alpha` is not positive and finite or does not broadcast to `batch`, or if `temporal`,
            `solver` or `on_failure` is not accepted.

    Source: "3D ConvNets with Optical Flow Based Regularization", equations 4 and 5.

    Example:
        >>> import jax, optflow_jax
        >>> filters = jax.random.normal(jax.random.key(0), (16, 7, 7, 7))
        >>> jax.grad(lambda w: optflow_jax.cost(w).mean())(filters).shape
        (16, 7, 7, 7)
    """
    return cost_and_success(filters, alpha, temporal, solver, on_failure)[0]


def cost_forward(
    filters: Float[ArrayLike, "*batch T H W"],
    *,
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
    solver: Solver = "auto",
    on_failure: OnFailure = "nan",
) -> Float[Array, "*batch"]:
    """`cost`, differentiable in forward mode too.

    Use it with `jax.jvp`, `jax.linearize`, `jax.hessian` and `jax.jacfwd`. It runs the same code as
    `cost`, under a `jax.custom_jvp` in place of the `jax.custom_vjp`. Its tangent is the inner
    product of the envelope theorem's gradient with the change of the arguments. JAX can transpose
    that, so reverse mode works as well.

    Args:
        filters: as for `cost`.
        alpha: as for `cost`.
        temporal: as for `cost`.
        solver: as for `cost`.
        on_failure: as for `cost`.

    Returns:
        The costs, `(*batch,)`, in the filters' dtype.

    Raises:
        ValueError: as `cost` does.

    Source: "3D ConvNets with Optical Flow Based Regularization", equations 4 and 5.

    Example:
        >>> import jax, jax.numpy as jnp, optflow_jax
        >>> w = jnp.ones((3, 4, 5))
        >>> jax.hessian(optflow_jax.cost_forward)(w).shape
        (3, 4, 5, 3, 4, 5)
    """
    return _checked_costs(_cost, filters, alpha, temporal, solver, on_failure)[0]


def flow(
    filters: Float[ArrayLike, "*batch T H W"],
    *,
    alpha: ArrayLike = 1.0,
    temporal: bool = True,
    solver: Solver = "auto",
) -> Flow:
    """The flow that minimises the optical flow loss of each filter, and the report of the solver.

    u, v, residual and cost are differentiable, in both modes, by the implicit function theorem.
    With `temporal=False` and odd H and W the flow of some filters is not unique (those with H = 1,
    for example); for them the flow of least norm is returned.

    Args:
        filters: as for `cost`.
        alpha: as for `cost`.
        temporal: as for `cost`.
        solver: as for `cost`.

    Returns:
        A `Flow`. Where `converged` is False it holds the best numbers that the solver found (NaN
        for a filter that is not finite); the function `cost` returns NaN there.

    Raises:
        ValueError: as `cost` does.

    Source: "3D ConvNets with Optical Flow Based Regularization", equations 4 and 11.

    Example:
        >>> import jax.numpy as jnp, optflow_jax
        >>> found = optflow_jax.flow(jnp.ones((2, 3, 5, 5)))
        >>> found.u.shape, found.converged.tolist()
        ((2, 3, 5, 5), [True, True])
    """
    temporal, solver, _ = _arguments.options(temporal, solver, "nan")
    w, alpha, restore = _arguments.filters("filters", filters, alpha)
    pixels, (value, converged, iterations) = _flow(w, alpha, temporal, solver)
    pixels = [restore(_arguments.to_public(x)) for x in pixels]
    return Flow(*pixels, restore(value), converged, iterations)
