"""Schedules, momentum, weight decay and the metric's place in the chain, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import channel_grad
from experiments.training.config import MetricConfig, OptimizerConfig
from experiments.training.optimizer import axes, learning_rate, make_optimizer

CONFIG = OptimizerConfig()


def test_paper_schedule_divides_by_ten_every_forty_epochs():
    schedule = learning_rate(CONFIG, steps=160 * 5, steps_per_epoch=5)
    for step, value in [(0, 0.1), (199, 0.1), (200, 0.01), (399, 0.01), (400, 1e-3), (799, 1e-4)]:
        assert schedule(step) == pytest.approx(value, rel=1e-5)


def test_exponential_schedule_of_the_optflow_paper():
    config = dataclasses.replace(
        CONFIG, learning_rate=1e-5, decay_epochs=1.0, decay_factor=1 / 0.95
    )
    schedule = learning_rate(config, steps=100, steps_per_epoch=7)
    for step in (0, 6, 7, 20, 70):
        assert schedule(step) == pytest.approx(1e-5 * 0.95 ** (step // 7), rel=1e-5)


def test_cosine_rises_for_a_tenth_and_falls_to_zero():
    schedule = learning_rate(dataclasses.replace(CONFIG, schedule="cosine"), 100, 5)
    assert schedule(0) == 0
    assert schedule(10) == pytest.approx(0.1)
    assert schedule(55) == pytest.approx(0.05, rel=1e-4)
    assert schedule(100) == pytest.approx(0.0, abs=1e-8)


def run(config, gradients, params, steps_per_epoch=1, weight_decay=0.0):
    optimizer, _ = make_optimizer(config, len(gradients), steps_per_epoch, weight_decay)
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_metric_acts_before_weight_decay_and_momentum():
    config = OptimizerConfig(metric=MetricConfig("reweighted_l2", lam=2.0))
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 2, 4))
    gradients = [rng.normal(size=kernel.shape) for _ in range(3)]
    got = run(
        config,
        [{"conv": {"kernel": jnp.float32(g)}} for g in gradients],
        {"conv": {"kernel": jnp.float32(kernel)}},
        steps_per_epoch=100,
        weight_decay=0.5,
    )
    velocity = np.zeros_like(kernel)
    for g in gradients:  # PyTorch's SGD, with the line of figure 3 in front.
        g = g + 2.0 * g.mean(axis=-1, keepdims=True)
        velocity = 0.9 * velocity + g + 0.5 * kernel
        kernel = kernel - 0.1 * velocity
    np.testing.assert_allclose(got["conv"]["kernel"], kernel, rtol=1e-5, atol=1e-6)


def test_momentum_rises_each_epoch_up_to_its_maximum():
    config = OptimizerConfig(momentum=0.5, momentum_step=0.1, learning_rate=1.0)
    got = run(config, [{"w": jnp.float32(1)}] * 12, {"w": jnp.float32(0)}, steps_per_epoch=2)
    weight = velocity = 0.0
    for step in range(12):
        velocity = min(0.5 + 0.1 * (step // 2), 0.9) * velocity + 1.0
        weight -= velocity
    assert got["w"] == pytest.approx(weight, rel=1e-5)


def test_adam_takes_the_moments_of_the_smoothed_gradient():
    metric = MetricConfig("sobolev", l2_weight=0.0)
    config = OptimizerConfig("adam", learning_rate=0.01, metric=metric)
    g = np.random.default_rng(1).normal(size=(1, 1, 1, 6))
    tree = {"conv": {"kernel": jnp.zeros((1, 1, 1, 6))}}
    got = run(config, [{"conv": {"kernel": jnp.float32(g)}}], tree, steps_per_epoch=100)
    h = channel_grad.Sobolev(l2_weight=0.0).gradient(jnp.float32(g))
    # Adam's first step is the learning rate times the sign.
    np.testing.assert_allclose(got["conv"]["kernel"], -0.01 * np.sign(h), rtol=1e-4)


@pytest.mark.parametrize("direction", ["output", "input", "raster"])
@pytest.mark.parametrize("layers", ["conv", "all"])
def test_direction_and_layers(direction, layers):
    rng = np.random.default_rng(2)
    tree = {
        "Conv_0": {"kernel": rng.normal(size=(3, 3, 4, 5)), "bias": rng.normal(size=5)},
        "Dense_0": {"kernel": rng.normal(size=(6, 7))},
        "BatchNorm_0": {"scale": rng.normal(size=5)},
    }
    tree = jax.tree.map(jnp.float32, tree)
    got, _ = channel_grad.scale_by_reweighted_l2(axes=axes(direction, layers)).update(
        tree, optax.EmptyState()
    )
    axis = {"output": -1, "input": -2, "raster": None}[direction]

    def smoothed(g):
        return g + (g.mean() if axis is None else g.mean(axis=axis, keepdims=True))

    expected = {**tree, "Conv_0": {**tree["Conv_0"], "kernel": smoothed(tree["Conv_0"]["kernel"])}}
    if layers == "all":
        expected["Dense_0"] = {"kernel": smoothed(tree["Dense_0"]["kernel"])}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, expected)
