"""U-Net: its parameters, what its decoder computes, and where metrics act in it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models.unet import DecoderBlock, UNet, resized


@pytest.mark.parametrize(
    ("encoder", "filters", "count"), [("resnet50", 8, 50_664_587), ("resnet50", 16, 88_102_849)]
)
def test_the_papers_networks_have_51_and_88_million_parameters(encoder, filters, count):
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(
        lambda: UNet(21, encoder, filters).init(jax.random.key(0), images, train=False)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count
    n, params = filters, shapes["params"]
    blocks = {  # channels in, in the middle and out
        "center": (2048, 64 * n, 32 * n),
        "decoder5": (2048 + 32 * n, 64 * n, 16 * n),
        "decoder4": (1024 + 16 * n, 32 * n, 8 * n),
        "decoder3": (512 + 8 * n, 16 * n, 4 * n),
        "decoder2": (256 + 4 * n, 8 * n, 2 * n),
        "decoder1": (64 + 2 * n, 4 * n, n),
    }
    for name, (inputs, middle, outputs) in blocks.items():
        assert params[name]["conv"]["kernel"].shape == (3, 3, inputs, middle)
        assert params[name]["transposed_conv"]["kernel"].shape == (4, 4, middle, outputs)
        assert params[name]["scse"]["squeeze"]["kernel"].shape == (middle, middle // 16)
    assert params["head_conv"]["kernel"].shape == (1, 1, 31 * n, 64)
    assert params["logits_conv"]["kernel"].shape == (1, 1, 64, 21)


def test_a_decoder_block_computes_what_its_layers_say():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 2, 3, 5, 4)).astype(np.float32)
    block = DecoderBlock(middle=32, filters=3)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), False, first, second))
    variables = jax.tree.map(
        lambda s: np.float32(rng.uniform(0.2, 1.0, s.shape) * rng.choice([-0.3, 0.3], s.shape)),
        shapes,
    )
    variables["batch_stats"]["bn"]["var"] = np.float32(rng.uniform(0.5, 2.0, 32))
    found = block.apply(variables, False, first, second)

    p = jax.tree.map(np.float64, variables["params"])
    seen = jax.tree.map(np.float64, variables["batch_stats"]["bn"])
    x = np.concatenate([first, second], axis=-1).astype(np.float64)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = sum(
        padded[:, i : i + 3, j : j + 5] @ p["conv"]["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    )
    y = (y + p["conv"]["bias"] - seen["mean"]) / np.sqrt(seen["var"] + 1e-5)
    y = np.maximum(y * p["bn"]["scale"] + p["bn"]["bias"], 0)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    scse = p["scse"]
    inner = np.maximum(y.mean((1, 2)) @ scse["squeeze"]["kernel"] + scse["squeeze"]["bias"], 0)
    channels = sigmoid(inner @ scse["excite"]["kernel"] + scse["excite"]["bias"])
    pixels = sigmoid(y @ scse["spatial_conv"]["kernel"][0, 0])
    y = y * channels[:, None, None] + y * pixels
    # A transposed convolution of stride 2 without a border of 1: each pixel is added to 4 x 4.
    kernel = p["transposed_conv"]["kernel"][::-1, ::-1]  # Flax correlates, as all of JAX
    whole = np.zeros((2, 2 * 3 + 2, 2 * 5 + 2, 3))
    for row in range(3):
        for column in range(5):
            whole[:, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += np.einsum(
                "nc,ijco->nijo", y[:, row, column], kernel
            )
    expected = whole[:, 1:-1, 1:-1] + p["transposed_conv"]["bias"]
    assert found.shape == (2, 6, 10, 3)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)


def test_features_are_scaled_up_between_pixel_centres():
    # The centres of 4 pixels lie at -1/4, 1/4, 3/4 and 5/4 of the former 2.
    x = jnp.array([0.0, 4.0]).reshape(1, 1, 2, 1)
    np.testing.assert_allclose(resized(x, (1, 4)).ravel(), [0, 1, 3, 4], atol=1e-6)


def test_images_that_cannot_be_halved_six_times_are_refused():
    with pytest.raises(ValueError, match="images: got 64 x 96; accepted: .* multiples of 64"):
        jax.eval_shape(
            lambda: UNet(2, "resnet18", 1, 4).init(
                jax.random.key(0), jnp.zeros((1, 64, 96, 3)), train=False
            )
        )
