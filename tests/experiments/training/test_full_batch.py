"""Newton, random search and proximal steps on problems with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize

from experiments.training.full_batch import newton, proximal, random_search
from optflow_jax import penalties


def descend(optimizer, f, x, steps):
    """The values of f before and after each step, and the last x."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(carry, key):
        x, state = carry
        value, gradient = jax.value_and_grad(f)(x)
        updates, state = optimizer.update(
            gradient, state, x, value=value, grad=gradient, value_fn=f, key=key
        )
        return (optax.apply_updates(x, updates), state), value

    keys = jax.random.split(jax.random.key(0), steps)
    (x, _), values = jax.jit(lambda x: jax.lax.scan(step, (x, optimizer.init(x)), keys))(x)
    return np.append(values, f(x)), x


def logistic(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(30, 3)), np.sign(rng.normal(size=30))

    def f(w):
        return jnp.mean(jnp.log1p(jnp.exp(-y * (x @ w)))) + 0.01 * jnp.sum(w**2)

    return f


def test_newton_finds_the_minimum_in_a_few_steps():
    with jax.enable_x64(True):
        f = logistic()
        values, w = descend(newton(tolerance=1e-10), f, jnp.full(3, 4.0), 8)
        expected = scipy.optimize.minimize(f, np.zeros(3), jac=jax.grad(f), tol=1e-10)
        np.testing.assert_allclose(w, expected.x, atol=1e-6)
        assert np.all(np.diff(values) <= 1e-12)


def test_newton_shortens_a_step_that_would_climb():
    def f(x):  # A full step from 3 overshoots to about -84.
        return jnp.sum(jnp.log(jnp.cosh(x)))

    values, x = descend(newton(), f, jnp.array([3.0]), 8)
    assert np.all(np.diff(values) <= 0) and abs(float(x[0])) < 1e-3


def test_random_search_keeps_the_best_it_has_seen():
    values, x = descend(random_search(1.0), lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(2), 100)
    assert np.all(np.diff(values) <= 0) and values[-1] < 0.2 < values[0]
    assert len(set(values.tolist())) < 15  # most draws are worse


def test_proximal_steps_end_at_the_minimum_with_exact_zeros():
    # min 1/2 |x - v|^2 + strength |x|_1 is soft thresholding of v.
    v, strength, rate = jnp.array([3.0, 0.4, -2.0, -0.1]), 0.5, 0.3
    chain = optax.chain(
        optax.sgd(rate), proximal(lambda x, r: penalties.prox_l1(x, r * strength), lambda _: rate)
    )
    _, x = descend(chain, lambda x: 0.5 * jnp.sum((x - v) ** 2), jnp.ones(4), 100)
    np.testing.assert_allclose(x, [2.5, 0, -1.5, 0], atol=1e-6)
    assert np.count_nonzero(x) == 2


def test_the_step_of_the_penalty_follows_the_schedule():
    chain = proximal(lambda x, rate: x - rate, lambda count: 0.1 * (count + 1))
    x, state = jnp.zeros(1), chain.init(jnp.zeros(1))
    for total in (-0.1, -0.3, -0.6):
        update, state = chain.update(jnp.zeros(1), state, x)
        x = optax.apply_updates(x, update)
        np.testing.assert_allclose(x, total, rtol=1e-6)
