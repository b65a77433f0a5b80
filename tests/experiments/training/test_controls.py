"""What metrics are compared with, against NumPy by hand: centralization, matched norms, Muon."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import channel_grad
from experiments.system.errors import ConfigError
from experiments.training.config import MetricConfig, OptimizerConfig
from experiments.training.controls import centralize, match_norm
from experiments.training.optimizer import make_optimizer, metric_transform
from experiments.training.settings import record

RNG = np.random.default_rng(0)
KERNEL, DENSE, BIAS = RNG.normal(size=(3, 3, 4, 5)), RNG.normal(size=(6, 7)), RNG.normal(size=5)


def tree(kernel=KERNEL, dense=DENSE, bias=BIAS):
    named = {"Conv_0": {"kernel": kernel, "bias": bias}, "Dense_0": {"kernel": dense}}
    return jax.tree.map(jnp.float32, named)


def step(config, gradient, params, weight_decay=0.0):
    """The update of the first step."""
    optimizer, _ = make_optimizer(config, 10, 10, weight_decay)
    updates, _ = jax.jit(optimizer.update)(gradient, optimizer.init(params), params)
    return updates


@pytest.mark.parametrize("layers", ["conv", "all"])
def test_centralization_takes_the_mean_of_each_filter_away(layers):
    got, _ = metric_transform(MetricConfig("centralization", layers=layers)).update(
        tree(), optax.EmptyState()
    )
    expected = KERNEL.copy()
    for output in range(5):
        expected[..., output] -= KERNEL[..., output].mean()
    dense = DENSE - DENSE.mean(axis=0) if layers == "all" else DENSE
    np.testing.assert_allclose(got["Conv_0"]["kernel"], expected, atol=1e-6)
    np.testing.assert_allclose(got["Dense_0"]["kernel"], dense, atol=1e-6)
    np.testing.assert_array_equal(got["Conv_0"]["bias"], np.float32(BIAS))


def test_optax_centralize_takes_other_axes():
    centralized, _ = optax.centralize().update(tree(), optax.EmptyState())
    means = np.mean(centralized["Conv_0"]["kernel"], axis=(0, 1, 2))
    assert np.all(np.abs(means) > 1e-3)
    ours, _ = centralize("conv").update(tree(), optax.EmptyState())
    np.testing.assert_allclose(np.mean(ours["Conv_0"]["kernel"], axis=(0, 1, 2)), 0, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_matched_norms_keep_the_direction_and_take_the_gain(scale):
    metric = metric_transform(MetricConfig("reweighted_l2", lam=3.0))
    gradient = tree(kernel=KERNEL * scale)
    got, _ = match_norm(metric).update(gradient, optax.EmptyState())
    smooth = KERNEL + 3.0 * KERNEL.mean(axis=-1, keepdims=True)
    expected = smooth * np.linalg.norm(KERNEL) / np.linalg.norm(smooth)
    np.testing.assert_allclose(got["Conv_0"]["kernel"] / np.float32(scale), expected, rtol=1e-4)
    np.testing.assert_array_equal(got["Dense_0"]["kernel"], np.float32(DENSE))


def test_matched_norms_of_zero_are_zero():
    metric = metric_transform(MetricConfig("sobolev"))
    got, _ = match_norm(metric).update(tree(kernel=0 * KERNEL), optax.EmptyState())
    np.testing.assert_array_equal(got["Conv_0"]["kernel"], 0.0)
    # A filter that is constant has nothing left when it is centralized.
    constant = tree(kernel=np.ones_like(KERNEL))
    got, _ = match_norm(centralize("conv")).update(constant, optax.EmptyState())
    np.testing.assert_array_equal(got["Conv_0"]["kernel"], 0.0)


def test_random_signs_scale_one_fixed_direction():
    """f + lam s mean(s f): the direction s comes out 1 + lam times as long, the rest as it was."""
    transform = metric_transform(MetricConfig("random_signs", lam=1.5))
    again = metric_transform(MetricConfig("random_signs", lam=1.5))
    # The columns of the identity, as gradients, give the matrix of the map.
    identity = tree(kernel=np.eye(5).reshape(1, 1, 5, 5))
    got, _ = transform.update(identity, optax.EmptyState())
    matrix = np.asarray(got["Conv_0"]["kernel"], np.float64)[0, 0]
    signs = np.sign(matrix[0] - np.eye(5)[0])
    assert set(np.abs(signs)) == {1.0}
    np.testing.assert_allclose(matrix, np.eye(5) + 1.5 / 5 * np.outer(signs, signs), atol=1e-6)
    np.testing.assert_array_equal(got["Dense_0"]["kernel"], np.float32(DENSE))
    np.testing.assert_array_equal(
        again.update(identity, optax.EmptyState())[0]["Conv_0"]["kernel"], got["Conv_0"]["kernel"]
    )
    other = {"Conv_1": identity["Conv_0"], "Conv_2": identity["Conv_0"]}
    drawn = transform.update(other, optax.EmptyState())[0]
    assert np.any(np.asarray(drawn["Conv_1"]["kernel"]) != np.asarray(drawn["Conv_2"]["kernel"]))


def test_a_negative_lam_damps_the_mean():
    got, _ = metric_transform(MetricConfig("reweighted_l2", lam=-0.5)).update(
        tree(), optax.EmptyState()
    )
    expected = KERNEL - 0.5 * KERNEL.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(got["Conv_0"]["kernel"], expected, atol=1e-6)
    for name in ("reweighted_l2", "random_signs"):
        with pytest.raises(ConfigError, match="lam"):
            MetricConfig(name, lam=-1.0)
    with pytest.raises(ConfigError, match="lam"):
        MetricConfig("reweighted_l2", lam=-0.5, form="equation")


def test_least_channels_leaves_narrow_layers_alone():
    wide = {"Conv_0": {"kernel": KERNEL}, "Conv_1": {"kernel": np.tile(KERNEL, 2)}}
    wide = jax.tree.map(jnp.float32, wide)
    config = MetricConfig("reweighted_l2", least_channels=10)
    got, _ = metric_transform(config).update(wide, optax.EmptyState())
    np.testing.assert_array_equal(got["Conv_0"]["kernel"], wide["Conv_0"]["kernel"])
    kernel = np.tile(KERNEL, 2)
    expected = kernel + kernel.mean(axis=-1, keepdims=True)
    np.testing.assert_allclose(got["Conv_1"]["kernel"], expected, atol=1e-6)
    assert record(config)["least_channels"] == 10
    assert "least_channels" not in record(MetricConfig("reweighted_l2"))


def test_the_metric_after_the_preconditioner():
    """Adam's first update is -rate * sign(f), up to epsilon; the metric then adds its mean."""
    metric = MetricConfig("reweighted_l2", lam=3.0)
    config = OptimizerConfig(
        "adam", learning_rate=0.1, schedule="linear", metric=metric, metric_place="after"
    )
    got = step(config, tree(), tree())
    signs = np.sign(KERNEL)
    expected = -0.1 * (signs + 3.0 * signs.mean(axis=-1, keepdims=True))
    np.testing.assert_allclose(got["Conv_0"]["kernel"], expected, rtol=1e-4)
    np.testing.assert_allclose(got["Dense_0"]["kernel"], -0.1 * np.sign(DENSE), rtol=1e-4)
    assert record(config)["metric_place"] == "after"
    assert "metric_place" not in record(OptimizerConfig(metric=metric))
    assert "metric_place" not in record(OptimizerConfig(metric_place="after"))
    with pytest.raises(ConfigError, match="metric_place"):
        OptimizerConfig("adamw", metric=metric, metric_place="after")


def test_learned_is_the_library_s_transformation():
    config = MetricConfig("learned", root_power=0.25, root_every=3)
    ours = metric_transform(config)
    library = channel_grad.scale_by_learned_metric(0.25, 0.95, 0.01, 3)
    got, _ = ours.update(tree(), ours.init(tree()))
    expected, _ = library.update(tree(), library.init(tree()))
    np.testing.assert_array_equal(got["Conv_0"]["kernel"], expected["Conv_0"]["kernel"])
    with pytest.raises(ConfigError, match="moment_decay"):
        MetricConfig("learned", moment_decay=1.0)


def test_match_norm_is_recorded_where_it_does_something():
    sobolev = MetricConfig("sobolev")
    assert record(OptimizerConfig(metric=sobolev, match_norm=True))["match_norm"] is True
    # Studies from before this setting keep their identity.
    assert "match_norm" not in record(OptimizerConfig(metric=sobolev))
    assert "match_norm" not in record(OptimizerConfig(match_norm=True))
    plain = step(OptimizerConfig(match_norm=True), tree(), tree())
    jax.tree.map(np.testing.assert_array_equal, plain, step(OptimizerConfig(), tree(), tree()))


def test_adamw_decays_weights_apart_from_the_gradient():
    config = OptimizerConfig("adamw", learning_rate=0.01)
    params = tree(bias=3 * BIAS)
    got = step(config, tree(), params, weight_decay=0.5)
    # Adam's first step is the sign of the gradient.
    for path, gradient in (("Conv_0", "bias"), ("Conv_0", "kernel"), ("Dense_0", "kernel")):
        sign = np.sign(tree()[path][gradient])
        expected = -0.01 * (sign + 0.5 * params[path][gradient])
        np.testing.assert_allclose(got[path][gradient], expected, rtol=1e-4, atol=1e-6)


def newton_schulz(matrix):
    """Muon's five iterations on a matrix with no more rows than columns."""
    x = matrix / np.linalg.norm(matrix)
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def test_muon_orthogonalizes_what_a_filter_sees_by_its_outputs():
    config = OptimizerConfig("muon", learning_rate=0.01)
    got = step(config, tree(), tree(kernel=2 * KERNEL), weight_decay=0.5)
    matrix = KERNEL.reshape(36, 5)  # (height, width, input) by output
    orthogonal = newton_schulz(matrix.T).T.reshape(KERNEL.shape)
    # Liu et al.: 0.2 sqrt(the longer side) gives updates of the size of AdamW's.
    expected = -0.01 * (0.2 * np.sqrt(36) * orthogonal + 0.5 * 2 * KERNEL)
    np.testing.assert_allclose(got["Conv_0"]["kernel"], expected, rtol=2e-3, atol=1e-5)
    # Everything else is AdamW's, with Nesterov's momentum and the same decay: the first step is
    # the sign times 0.9 m / (1 - 0.9^2) + (1 - 0.9) / (1 - 0.9), where m is 0.1.
    first = 0.9 * 0.1 / (1 - 0.9**2) + 1
    for path, name in (("Conv_0", "bias"), ("Dense_0", "kernel")):
        values = np.asarray(tree()[path][name])
        expected = -0.01 * (first * np.sign(values) + 0.5 * values)
        np.testing.assert_allclose(got[path][name], expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_the_metric_stands_in_front_of_every_optimizer(name):
    metric = MetricConfig("reweighted_l2", lam=2.0)
    smooth = KERNEL + 2.0 * KERNEL.mean(axis=-1, keepdims=True)
    got = step(OptimizerConfig(name, metric=metric), tree(), tree())
    expected = step(OptimizerConfig(name), tree(kernel=smooth), tree())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), got, expected)
