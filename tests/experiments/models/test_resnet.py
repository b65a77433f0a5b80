"""The residual network against He et al."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.resnet import BasicBlock, ResNet


def test_resnet56_has_the_parameters_of_the_paper():
    shapes = jax.eval_shape(
        lambda key: ResNet(depth=56).init(key, jnp.zeros((1, 32, 32, 3)), train=False),
        jax.random.key(0),
    )
    kernels = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
        if path[-1].key == "kernel" and len(leaf.shape) == 4
    ]
    assert len(kernels) == 55 and len(set(kernels)) == 6
    # He et al., table 6: 0.85 million. By hand: 3x3 kernels, scale and bias, the dense layer.
    convolutions = 9 * (3 * 16 + 18 * 16**2 + 16 * 32 + 17 * 32**2 + 32 * 64 + 17 * 64**2)
    norms = 2 * (19 * 16 + 18 * 32 + 18 * 64)
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert total == convolutions + norms + 64 * 10 + 10
    assert round(total / 1e6, 2) == 0.85


def test_shortcut_takes_every_second_pixel_and_pads_channels():
    block = BasicBlock(filters=8, strides=2, dtype=jnp.float32)
    x = jax.random.uniform(jax.random.key(0), (1, 6, 6, 4))
    variables = jax.eval_shape(partial(block.init, train=False), jax.random.key(1), x)
    # With every parameter zero, and any statistics, only the shortcut is left.
    silent = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables["params"])
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables)
    out = block.apply({**variables, "params": silent}, x, train=False)
    np.testing.assert_array_equal(out[..., 2:6], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., [0, 1, 6, 7]], 0)


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    model = ResNet(depth=8, dtype=jnp.bfloat16)

    def forward(key, images):
        variables = model.init(key, images, train=False)
        return variables, *model.apply(variables, images, train=True, mutable=["batch_stats"])

    variables, logits, updates = jax.eval_shape(
        forward, jax.random.key(0), jnp.ones((2, 32, 32, 3))
    )
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_a_block_is_left_out_of_steps_at_its_drop_rate():
    rate, steps = 0.4, 500
    block = BasicBlock(filters=2, strides=1, dtype=jnp.float32, drop_rate=rate)
    x = jax.random.uniform(jax.random.key(0), (1, 2, 2, 2))  # not negative: relu is idle
    variables = jax.jit(partial(block.init, train=False))(jax.random.key(1), x)

    def is_there(key):
        out, _ = block.apply(
            variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )
        return jnp.any(out != x)

    keys = jax.random.split(jax.random.key(2), steps)
    share = float(jnp.mean(jax.jit(jax.vmap(is_there))(keys)))
    assert abs(share - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / steps)


def test_the_drop_rates_of_the_blocks_rise_linearly_to_the_last():
    rates = []

    def note(following, arguments, keywords, context):
        if isinstance(context.module, BasicBlock) and context.method_name == "__call__":
            rates.append(context.module.drop_rate)
        return following(*arguments, **keywords)

    model = ResNet(depth=14, width=2, stochastic_depth=0.6)
    with nn.intercept_methods(note):
        jax.eval_shape(partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


def test_in_evaluation_a_block_is_scaled_by_its_chance_of_being_there():
    x = jax.random.uniform(jax.random.key(0), (1, 4, 4, 2))
    block = BasicBlock(filters=2, strides=1, dtype=jnp.float32)
    variables = jax.jit(partial(block.init, train=False))(jax.random.key(1), x)

    def branch(rate):
        block = BasicBlock(filters=2, strides=1, dtype=jnp.float32, drop_rate=rate)
        return np.asarray(jax.jit(partial(block.apply, train=False))(variables, x) - x)

    whole, scaled = branch(0.0), branch(0.25)
    positive = whole > -np.asarray(x)  # where relu cuts nothing off
    assert positive.mean() > 0.3
    np.testing.assert_allclose(scaled[positive], 0.75 * whole[positive], atol=1e-5)


def test_without_stochastic_depth_nothing_is_drawn():
    model = ResNet(depth=8, width=2)
    images = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(1), images)

    def step(variables, key):
        return model.apply(
            variables, images, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    assert "random" not in str(jax.make_jaxpr(step)(variables, jax.random.key(0)))
