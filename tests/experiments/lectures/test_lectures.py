"""The lectures' pictures as numbers: the valley, the cliff, bias and variance, spread weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lectures import bias_variance, cliff, valley
from optflow_jax import penalties


def test_second_order_methods_cross_the_valley_at_once():
    names = ("gd", "lbfgs", "newton", "random search")
    found = valley.valley(names, steps=15)
    lowest = found.loss.min()  # of the grid
    for name in names:
        np.testing.assert_array_equal(found.paths[name][0], valley.START)
        assert found.losses[name][-1] < 0.2 * found.losses[name][0]
    assert found.losses["newton"][-1] < lowest and found.losses["lbfgs"][-1] < lowest
    assert found.losses["gd"][-1] > lowest + 0.01  # along the valley it hardly moves
    points, labels = valley.examples()
    corner = valley.loss(jnp.array([found.first[3], found.second[7]]), points, labels)
    assert found.loss[7, 3] == pytest.approx(float(corner), rel=1e-5)


def test_the_valley_is_narrow():
    points, labels = valley.examples()
    hessian = jax.jit(jax.hessian(valley.loss))(jnp.array([0.5, 1.5]), points, labels)
    low, high = np.linalg.eigvalsh(hessian)
    assert high / low > 10


def test_l2_takes_the_cliff_away_at_the_price_of_data_loss():
    free, smooth = cliff.fit(0.0), cliff.fit(0.1)
    x = np.array([-0.25, 0.0, 0.25])  # between the training points
    assert np.diff(free.probability(x)).sum() > 0.9
    assert np.diff(smooth.probability(x)).sum() < 0.3
    assert free.data_loss < 0.01 < smooth.data_loss
    assert free.penalty > 20 * smooth.penalty
    for found in (free, smooth):  # both are right at every training point
        np.testing.assert_array_equal(found.probability(cliff.POINTS) > 0.5, cliff.LABELS == 1)


def test_the_cliff_is_a_minimum_of_the_stated_objective():
    strength = 0.1
    found = cliff.fit(strength)

    def objective(weights):
        scores = jnp.outer(cliff.POINTS, weights[:2]) + weights[2:]
        chosen = jax.nn.log_softmax(scores)[jnp.arange(len(cliff.LABELS)), cliff.LABELS]
        return -jnp.mean(chosen) + strength * jnp.sum(weights[:2] ** 2)

    with jax.enable_x64(True):
        np.testing.assert_allclose(jax.grad(objective)(jnp.asarray(found.weights)), 0, atol=1e-8)
        total = found.data_loss + strength * found.penalty
        assert objective(jnp.asarray(found.weights)) == pytest.approx(total)


def test_bias_falls_and_variance_rises_as_functions_get_narrower():
    widths = (5.0, 1.0, 0.1)
    wide, middle, narrow = (bias_variance.decompose(width) for width in widths)
    assert wide.bias_squared > 10 * wide.variance
    assert narrow.variance > 10 * narrow.bias_squared
    assert wide.variance < middle.variance < narrow.variance
    assert middle.error < min(wide.error, narrow.error)
    for found in (wide, middle, narrow):
        assert found.error == pytest.approx(found.bias_squared + found.variance)


def test_l2_prefers_weights_that_are_spread_out_where_the_data_does_not_care():
    x, sharp, spread = jnp.ones(4), jnp.array([1.0, 0, 0, 0]), jnp.full(4, 0.25)
    assert sharp @ x == spread @ x == 1  # both fit
    assert float(penalties.l2(sharp)) == 1 and float(penalties.l2(spread)) == 0.25
    assert float(penalties.l1(sharp)) == float(penalties.l1(spread)) == 1  # L1 does not care

    def objective(w):
        return (w @ x - 1) ** 2 + 1e-2 * penalties.l2(w)

    step = jax.jit(lambda _, w: w - 0.1 * jax.grad(objective)(w))
    found = jax.lax.fori_loop(0, 5000, step, sharp)
    np.testing.assert_allclose(found, found.mean(), atol=1e-3)
    np.testing.assert_allclose(found @ x, 1, atol=0.01)
