"""VGG-16 for small images: its layers, its parameters, and what it computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.vgg import VGG16


@pytest.fixture(scope="module")
def images():
    return jax.random.normal(jax.random.key(0), (4, 32, 32, 3))


@pytest.fixture(scope="module")
def variables(images):
    # He's initialisation, drawn by NumPy: compiling `init` takes longer than all the rest.
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(lambda: VGG16(width=16).init(jax.random.key(1), images, train=False))

    def draw(leaf):
        if leaf.ndim == 1:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        deviation = np.sqrt(2 / np.prod(leaf.shape[:-1]))
        return np.float32(rng.normal(0, deviation, leaf.shape))

    return jax.tree.map(draw, shapes)


def test_the_full_network_has_configuration_d_and_15_million_parameters():
    shapes = jax.eval_shape(
        lambda: VGG16().init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )
    channels = [3, 64, 64, 128, 128, 256, 256, 256, *[512] * 6]
    for layer in range(13):
        assert shapes["params"][f"Conv_{layer}"]["kernel"].shape == (3, 3, *channels[layer:][:2])
        assert "bias" not in shapes["params"][f"Conv_{layer}"]
        assert shapes["params"][f"BatchNorm_{layer}"]["scale"].shape == (channels[layer + 1],)
    assert shapes["params"]["Dense_0"]["kernel"].shape == (512, 10)
    assert len(shapes["params"]) == 2 * 13 + 1
    # 9 * (sum of in * out) + scale and bias of 4,224 channels + 512 * 10 + 10.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == 14_724_042


def convolve(x, kernel):
    """The sum that defines a 3x3 convolution with a border of zeros, in float64."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = x.shape[1:3]
    return sum(
        padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
    )


def test_evaluation_computes_what_its_layers_say(images, variables):
    params, statistics = (
        jax.tree.map(np.float64, variables[name]) for name in ("params", "batch_stats")
    )
    x, layer = np.float64(images), 0
    for convolutions in (2, 2, 3, 3, 3):
        for _ in range(convolutions):
            x = convolve(x, params[f"Conv_{layer}"]["kernel"])
            norm, seen = params[f"BatchNorm_{layer}"], statistics[f"BatchNorm_{layer}"]
            x = (x - seen["mean"]) / np.sqrt(seen["var"] + 1e-5) * norm["scale"] + norm["bias"]
            x, layer = np.maximum(x, 0), layer + 1
        n, height, width, c = x.shape
        x = x.reshape(n, height // 2, 2, width // 2, 2, c).max(axis=(2, 4))
    expected = x[:, 0, 0] @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    logits = jax.jit(VGG16(width=16).apply, static_argnames="train")(variables, images, train=False)
    assert logits.shape == (4, 10)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)


def test_training_updates_statistics_and_bfloat16_keeps_float32_outside(images, variables):
    model = VGG16(width=16, dtype=jnp.bfloat16)
    initial = jax.eval_shape(lambda: model.init(jax.random.key(1), images, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}

    @jax.jit
    def compute(variables):
        full, updates = VGG16(width=16).apply(
            variables, images, train=True, mutable=["batch_stats"]
        )
        half, _ = model.apply(variables, images, train=True, mutable=["batch_stats"])
        return full, half, updates["batch_stats"]

    full, half, statistics = compute(variables)
    assert full.dtype == half.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.3 * np.abs(full).max()
    before = variables["batch_stats"]["BatchNorm_0"]["mean"]
    first = np.float64(variables["params"]["Conv_0"]["kernel"])
    mean = convolve(np.float64(images), first).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(
        statistics["BatchNorm_0"]["mean"], 0.9 * before + 0.1 * mean, atol=1e-5
    )


def test_what_is_refused(images):
    for width in (0, 3, 128):
        with pytest.raises(ValueError, match=f"width: got {width}; accepted: a divisor of 64"):
            VGG16(width=width).init(jax.random.key(0), images, train=False)
    with pytest.raises(ValueError, match=r"images: got shape \(4, 28, 28, 3\); accepted: height"):
        VGG16(width=16).init(jax.random.key(0), images[:, :28, :28], train=False)
