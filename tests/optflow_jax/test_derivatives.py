"""Derivatives of both modes and of second order, by finite differences and against each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import optflow_jax

SOLVERS = ("auto", "cg", "cholesky", "sparse_cg", "sparse_direct")


def _filters(*shape):
    return jnp.asarray(np.random.RandomState(8).randn(*shape))


def _directions(arguments, seed):
    rng = np.random.RandomState(seed)
    return tuple(jnp.asarray(rng.randn(*x.shape)) for x in arguments)


def _inner(x, y):
    return sum(map(jnp.vdot, x, y))


def _gradient(function):
    """Of all arguments together: gradient(arguments), a tuple like them."""
    return jax.grad(lambda arguments: function(*arguments))


def _check_against_differences(derivatives, arguments, direction):
    """derivatives(arguments) is the value, its gradient, and products of Hessian and direction.

    One compiled program serves the point and its two neighbours.
    """
    step = 1e-5
    before, after = (
        derivatives(jax.tree.map(lambda x, d, s=s: x + s * step * d, arguments, direction))
        for s in (-1, 1)
    )
    _, gradient, *products = derivatives(arguments)
    change = (after[0] - before[0]) / (2 * step)
    np.testing.assert_allclose(_inner(gradient, direction), change, rtol=1e-6, atol=1e-8)
    turn = jax.tree.map(lambda x, y: (x - y) / (2 * step), after[1], before[1])
    for product in products:
        for got, expected in zip(product, turn, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def _check_reverse_mode(function, *arguments):
    """Gradient, and reverse over reverse mode."""
    direction = _directions(arguments, 1)

    @jax.jit
    def derivatives(arguments):
        gradient = _gradient(function)
        product = jax.grad(lambda arguments: _inner(gradient(arguments), direction))
        return function(*arguments), gradient(arguments), product(arguments)

    _check_against_differences(derivatives, arguments, direction)


@pytest.mark.parametrize("solver", SOLVERS)
def test_reverse_mode_to_second_order(solver, x64):
    cost = functools.partial(optflow_jax.cost, solver=solver)
    _check_reverse_mode(lambda w, a: cost(w, alpha=a), _filters(2, 3, 4), jnp.asarray(0.8))


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_reverse_mode_to_second_order_with_a_singular_matrix(solver, x64):
    cost = functools.partial(optflow_jax.cost, temporal=False, solver=solver)
    _check_reverse_mode(cost, _filters(2, 3, 5))


def test_forward_mode_of_the_companion(x64):
    """Forward mode, and second derivatives by every pair of modes."""
    arguments = _filters(2, 3, 4), jnp.asarray(0.8)
    direction, other = (_directions(arguments, seed) for seed in (1, 2))

    def cost(w, a):
        return optflow_jax.cost_forward(w, alpha=a, solver="cg")

    def slope(arguments):
        return jax.jvp(cost, arguments, direction)[1]

    @jax.jit
    def derivatives(arguments):
        gradient = _gradient(cost)
        reverse_of_reverse = jax.grad(lambda x: _inner(gradient(x), direction))(arguments)
        reverse_of_forward = jax.grad(slope)(arguments)
        forward_of_reverse = jax.jvp(gradient, (arguments,), (direction,))[1]
        products = reverse_of_reverse, reverse_of_forward, forward_of_reverse
        return cost(*arguments), gradient(arguments), *products

    @jax.jit
    def forward(arguments):
        return slope(arguments), *jax.jvp(slope, (arguments,), (other,))

    _check_against_differences(derivatives, arguments, direction)
    _, gradient, product, *_ = derivatives(arguments)
    first, again, second = forward(arguments)
    np.testing.assert_allclose([first, again], _inner(gradient, direction), rtol=1e-9)
    np.testing.assert_allclose(second, _inner(product, other), rtol=1e-8)


def test_derivatives_of_the_flow(x64):
    def flow(w, a):
        found = optflow_jax.flow(w, alpha=a, solver="cholesky")
        return found.u, found.v, found.residual, found.cost

    check_grads(flow, (_filters(2, 3, 4), jnp.asarray(0.8)), 1)


def test_hessians_agree(x64):
    w, direction = _filters(2, 3, 4), _filters(2, 3, 4)[::-1]
    forward, reverse = (
        functools.partial(f, solver="cg") for f in (optflow_jax.cost_forward, optflow_jax.cost)
    )
    gradient = jax.jit(jax.grad(reverse))

    @jax.jit
    def second(w):
        backward = jax.grad(lambda w: jnp.vdot(gradient(w), direction))(w)
        return jax.hessian(forward)(w), backward, jax.jvp(gradient, (w,), (direction,))[1]

    hessian, *products = second(w)
    hessian = hessian.reshape(24, 24)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-10)
    product = hessian @ direction.ravel()
    for other in products:
        np.testing.assert_allclose(other.ravel(), product, atol=1e-9)
    step = 1e-5
    difference = (gradient(w + step * direction) - gradient(w - step * direction)) / (2 * step)
    np.testing.assert_allclose(product, difference.ravel(), rtol=1e-5, atol=1e-6)


def test_forward_mode_of_cost_itself_is_refused():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(optflow_jax.cost, (jnp.ones((2, 2, 2)),), (jnp.ones((2, 2, 2)),))


def test_backward_pass_costs_no_second_solve():
    filters = jnp.ones((4, 3, 4, 5))
    cost = functools.partial(optflow_jax.cost, solver="cholesky")
    value = jax.jit(lambda w: cost(w).sum()).lower(filters).compile().as_text()
    both = jax.jit(jax.value_and_grad(lambda w: cost(w).sum())).lower(filters).compile().as_text()
    assert value.count("potrf") > 0
    assert both.count("potrf") == value.count("potrf")
    assert both.count(" while(") == value.count(" while(")


@pytest.mark.parametrize("solver", ["auto", "sparse_direct"])
def test_batches_agree_however_they_are_written(solver):
    filters = jnp.asarray(np.random.RandomState(9).randn(2, 3, 2, 3, 4), jnp.float32)
    alpha = jnp.asarray([[0.5, 1.0, 2.0], [1.0, 1.0, 3.0]])

    def cost(w, a):
        return optflow_jax.cost(w, alpha=a, solver=solver)

    def total(w, a):
        costs = cost(w, a)
        return costs.sum(), costs

    def slopes(w, a):
        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(w, a)

    (_, leading), gradients = jax.jit(slopes)(filters, alpha)
    assert leading.shape == (2, 3)
    (_, mapped), each = jax.jit(jax.vmap(jax.vmap(slopes)))(filters, alpha)
    np.testing.assert_allclose(mapped, leading, rtol=1e-6)
    for a, b in zip(gradients, each, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert jax.eval_shape(cost, filters[1, 2], alpha[1, 2]).shape == ()
    # One filter under three strengths of smoothness: R grows with alpha.
    each_alpha = jax.jit(jax.vmap(cost, in_axes=(None, 0)))
    over_alpha = each_alpha(filters[0, 0], jnp.asarray([0.1, 0.5, 10.0]))
    np.testing.assert_allclose(over_alpha[1], leading[0, 0], rtol=1e-5)
    assert (jnp.diff(over_alpha) > 0).all()


def test_second_derivatives_of_tiny_filters_which_are_solved_in_float64_too():
    w = np.random.RandomState(8).randn(2, 1, 2, 2).astype(np.float32)

    def hessian(w):
        cost = functools.partial(optflow_jax.cost_forward, solver="cg")
        return jax.vmap(jax.hessian(cost))(w)

    def product(w):
        cost = functools.partial(optflow_jax.cost, solver="cg", on_failure="drop")
        slope = jax.grad(lambda w: cost(w).sum())
        return jax.jvp(slope, (w,), (jnp.sin(w),))[1]

    both = jax.jit(lambda w: (hessian(w), product(w)))
    got = both(w)
    with jax.enable_x64(True):
        expected = both(jnp.asarray(w, jnp.float64))
    for x, y in zip(got, expected, strict=True):
        assert x.dtype == jnp.float32
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
