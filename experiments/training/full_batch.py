"""Optimizers that look at the objective itself: random search, Newton's method, proximal steps.

All are optax transformations. The first two take `value` and `value_fn` as optax's line searches
do, and work for one objective without noise: give them all examples in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg


def random_search(scale: float) -> optax.GradientTransformationExtraArgs:
    """Draws parameters anew at each step, and keeps them where the objective is lower.

    Args:
      scale: standard deviation of the normal distribution that they are drawn from.

    Returns:
      A transformation whose `update` needs params, `value`, `value_fn` and `key`.

    Example:
      >>> f = lambda x: jnp.sum((x - 1) ** 2)
      >>> search, x = random_search(scale=1.0), jnp.array([5.0])
      >>> for step in range(50):
      ...     key = jax.random.key(step)
      ...     update, _ = search.update(x, search.init(x), x, value=f(x), value_fn=f, key=key)
      ...     x = optax.apply_updates(x, update)
      >>> bool(abs(x[0] - 1) < 0.1)
      True
    """

    def update(gradient, state, params, *, value, value_fn, key, **others):
        del gradient, others
        drawn = optax.tree.random_like(key, params)
        drawn = jax.tree.map(lambda leaf: scale * leaf, drawn)
        better = value_fn(drawn) < value
        return jax.tree.map(lambda new, old: jnp.where(better, new - old, 0), drawn, params), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


def newton(
    damping: float = 0.0, iterations: int = 100, tolerance: float = 1e-4
) -> optax.GradientTransformationExtraArgs:
    """Newton's method for a convex objective, with the Hessian as products with vectors.

        w <- w - t d,   (H + damping I) d = g

    The system is solved by conjugate gradients, which need products H v only (a derivative of the
    gradient along v) and not the n x n entries of H. The step t is 1, halved until the objective
    falls by 1e-4 t <g, d> or more (Armijo's rule).

    Args:
      damping: added to the diagonal of the Hessian, where it is singular.
      iterations: of conjugate gradients, at most.
      tolerance: of their residual, relative to the gradient.

    Returns:
      A transformation whose `update` needs params, `value` and `value_fn`.

    Source:
      Nocedal and Wright, "Numerical Optimization" (2006), section 7.1.

    Example:
      >>> f = lambda x: 0.5 * (x[0] - 1) ** 2 + 50 * (x[1] + 2) ** 2
      >>> x = jnp.zeros(2)
      >>> step, _ = newton().update(jax.grad(f)(x), None, x, value=f(x), value_fn=f)
      >>> (x + step).round(4)
      Array([ 1., -2.], dtype=float32)
    """

    def update(gradient, state, params, *, value, value_fn, **others):
        del others

        def product(v):
            _, hessian_v = jax.jvp(jax.grad(value_fn), (params,), (v,))
            return jax.tree.map(lambda h, leaf: h + damping * leaf, hessian_v, v)

        direction, _ = cg(product, gradient, tol=tolerance, maxiter=iterations)
        slope = optax.tree.vdot(gradient, direction)

        def moved(t):
            return jax.tree.map(lambda w, d: w - t * d, params, direction)

        def too_long(t):
            enough = value_fn(moved(t)) <= value - 1e-4 * t * slope
            return ~enough & (t > 1e-6)

        t = jax.lax.while_loop(too_long, lambda t: t / 2, jnp.ones_like(value))
        # Where not even the least step descends, rounding is all that is left to gain.
        t = jnp.where(t > 1e-6, t, 0)
        return jax.tree.map(lambda d: -t * d, direction), state

    return optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)


class _ProximalState(NamedTuple):
    count: jax.Array


def proximal(
    prox: Callable[[Any, jax.Array], Any], learning_rate: optax.Schedule
) -> optax.GradientTransformation:
    """The proximal step of a penalty after a step of gradient descent; goes at the end of a chain.

        w <- prox_(learning_rate * penalty)(w - learning_rate * g)

    With it a penalty with a kink, such as L1, makes weights exactly zero.

    Args:
      prox: (parameters, learning rate) to parameters.
      learning_rate: the schedule of the step in front of it.

    Source:
      Parikh and Boyd, "Proximal algorithms" (2014), section 4.2.

    Example:
      >>> soft = lambda w, step: jnp.sign(w) * jnp.maximum(jnp.abs(w) - step, 0)
      >>> chain = optax.chain(optax.sgd(0.1), proximal(soft, lambda count: 0.1))
      >>> w = jnp.array([1.0, 0.05])
      >>> update, _ = chain.update(jnp.zeros(2), chain.init(w), w)
      >>> optax.apply_updates(w, update)
      Array([0.9, 0. ], dtype=float32)
    """

    def update(updates, state, params=None):
        ahead = optax.apply_updates(params, updates)
        thresholded = prox(ahead, learning_rate(state.count))
        updates = jax.tree.map(lambda new, old: new - old, thresholded, params)
        return updates, _ProximalState(optax.safe_increment(state.count))

    return optax.GradientTransformation(
        lambda params: _ProximalState(jnp.zeros((), jnp.int32)), update
    )
