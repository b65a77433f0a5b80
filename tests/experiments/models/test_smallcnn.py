"""The two-layer network of the smoothness sweep: its layers and what it computes."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.smallcnn import SmallCNN, max_pool_2x2


def test_the_papers_network_has_50_and_100_filters_of_5x5():
    shapes = jax.eval_shape(
        lambda: SmallCNN().init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
    )["params"]
    assert {name: layer["kernel"].shape for name, layer in shapes.items()} == {
        "Conv_0": (5, 5, 1, 50),
        "Conv_1": (5, 5, 50, 100),
        "Dense_0": (7 * 7 * 100, 10),
    }
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count == (25 * 50 + 50) + (25 * 50 * 100 + 100) + (4900 * 10 + 10)


def test_it_computes_what_its_layers_say_in_either_dtype():
    rng = np.random.default_rng(0)
    images = np.float32(rng.normal(size=(3, 8, 8, 2)))
    model, half = (SmallCNN(filters=(3, 4), dtype=d) for d in (jnp.float32, jnp.bfloat16))
    shapes = jax.eval_shape(lambda: half.init(jax.random.key(1), images, train=False))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}
    params = jax.tree.map(lambda leaf: 0.3 * rng.normal(size=leaf.shape), shapes)
    x = np.float64(images)
    for layer in ("Conv_0", "Conv_1"):
        kernel, bias = params[layer]["kernel"], params[layer]["bias"]
        size = x.shape[1]
        padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        x = bias + sum(
            padded[:, i : i + size, j : j + size] @ kernel[i, j] for i in range(5) for j in range(5)
        )
        x = np.maximum(x, 0).reshape(3, size // 2, 2, size // 2, 2, -1).max(axis=(2, 4))
    expected = x.reshape(3, -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    variables = {"params": jax.tree.map(np.float32, params)}
    logits, rounded = jax.jit(
        lambda v, x: (model.apply(v, x, train=True), half.apply(v, x, train=True))
    )(variables, images)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    assert rounded.dtype == jnp.float32
    assert 0 < np.abs(rounded - logits).max() < 0.05 * np.abs(expected).max()


def test_the_pooling_and_its_gradient_are_those_of_a_window_that_moves_by_two():
    rng = np.random.default_rng(2)
    images, weights = np.float32(rng.normal(size=(2, 7, 6, 3))), rng.normal(size=(2, 3, 3, 3))

    def pooled(pool):
        return jax.jit(jax.value_and_grad(lambda x: jnp.sum(np.float32(weights) * pool(x))))(images)

    ours, theirs = pooled(max_pool_2x2), pooled(lambda x: nn.max_pool(x, (2, 2), strides=(2, 2)))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5)
    np.testing.assert_array_equal(ours[1], theirs[1])
