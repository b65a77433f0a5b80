import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import convnet3d
from experiments.models.convnet3d import ConvNet3D, conv3d, narrow, pool


def reference(x, kernel):
    """y[t, h, w, o] = sum of x[t + a - (k - 1) // 2, ...] kernel[a, ..., i, o], in float64."""
    sizes = kernel.shape[:3]
    padded = np.pad(x, ((0, 0), *(((k - 1) // 2, k // 2) for k in sizes), (0, 0)))
    y = np.zeros((*x.shape[:-1], kernel.shape[-1]))
    for offset in np.ndindex(*sizes):
        window = padded[
            (slice(None), *(slice(a, a + n) for a, n in zip(offset, x.shape[1:4], strict=True)))
        ]
        y += window @ kernel[offset]
    return y


# Batch, clip, channels; kernel; outputs: blocks of 1, 2, 3, 5 and 8 frames, odd and even kernels.
CASES = [
    ((2, 8, 5, 6, 3), (3, 3, 3), 4),
    ((1, 6, 5, 4, 2), (7, 7, 7), 16),
    ((2, 6, 4, 4, 3), (5, 3, 1), 10),
    ((1, 5, 3, 4, 1), (2, 4, 3), 6),
    ((1, 7, 4, 3, 2), (3, 3, 3), 12),
    ((1, 4, 3, 3, 2), (3, 3, 3), 40),
    ((2, 1, 1, 1, 3), (3, 3, 3), 2),
]


@pytest.mark.parametrize("shape, sizes, outputs", CASES)
def test_both_methods_are_the_sum_that_defines_a_convolution(shape, sizes, outputs):
    generator = np.random.default_rng(0)
    x = generator.standard_normal(shape)
    kernel = generator.standard_normal((*sizes, shape[-1], outputs))
    cotangent = generator.standard_normal((*shape[:-1], outputs))
    expected = reference(x, kernel)
    with jax.enable_x64(True):

        def products(method):
            def product(x, kernel):
                y = conv3d(x, kernel, method)
                return (y * cotangent).sum(), y

            return jax.jit(jax.value_and_grad(product, (0, 1), has_aux=True))(x, kernel)

        (_, native), native_gradients = products("native")
        (_, folded), folded_gradients = products("folded")
    np.testing.assert_allclose(native, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(folded, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(native_gradients, folded_gradients, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-11)


def test_the_method_is_chosen_by_the_backend_alone(monkeypatch):
    x, kernel = jnp.ones((1, 4, 4, 4, 1)), jnp.ones((3, 3, 3, 1, 2))

    def primitives():
        return str(jax.make_jaxpr(conv3d)(x, kernel))

    assert "lhs_spec=(0, 3, 1, 2)" in primitives()  # NHWC, on this CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    jax.clear_caches()
    assert "lhs_spec=(0, 4, 1, 2, 3)" in primitives()  # NDHWC
    with pytest.raises(ValueError, match="method: got 'fft'; accepted are auto, native and folded"):
        conv3d(x, kernel, "fft")


@pytest.mark.parametrize("shape", [(2, 4, 6, 8, 3), (1, 5, 7, 2, 1)])
def test_pooling_is_the_maximum_over_two_cubed(shape):
    x = jax.random.normal(jax.random.key(0), shape)
    expected = nn.max_pool(x, (2, 2, 2), (2, 2, 2))
    np.testing.assert_array_equal(pool(x), expected)
    gradient = jax.grad(lambda x: (pool(x) ** 2).sum())(x)
    expected = jax.grad(lambda x: (nn.max_pool(x, (2, 2, 2), (2, 2, 2)) ** 2).sum())(x)
    np.testing.assert_array_equal(gradient, expected)


def test_pooling_keeps_an_axis_of_length_one():
    x = jax.random.normal(jax.random.key(0), (2, 1, 4, 1, 3))
    np.testing.assert_array_equal(pool(x), x.reshape(2, 1, 2, 2, 1, 3).max(3))


def test_the_papers_network_has_the_layers_of_figure_6():
    shapes = jax.eval_shape(
        lambda: ConvNet3D(num_classes=10).init(
            jax.random.key(0), jnp.zeros((1, 16, 112, 112, 3)), train=False
        )
    )
    kernels = {name: layer["kernel"].shape for name, layer in shapes["params"].items()}
    assert kernels == {
        "Conv_0": (7, 7, 7, 3, 16),
        "Conv_1": (3, 3, 3, 16, 32),
        "Conv_2": (3, 3, 3, 32, 64),
        "Conv_3": (3, 3, 3, 64, 128),
        "Conv_4": (3, 3, 3, 128, 128),
        "Dense_0": (2 * 14 * 14 * 128, 256),
        "Dense_1": (256, 256),
        "Dense_2": (256, 10),
    }
    for name, layer in shapes["params"].items():
        assert layer["bias"].shape == kernels[name][-1:]
        assert {leaf.dtype for leaf in layer.values()} == {jnp.dtype("float32")}


@pytest.fixture(scope="module")
def clips():
    return jax.random.normal(jax.random.key(0), (4, 8, 16, 16, 3))


@pytest.fixture(scope="module")
def variables(clips):
    return jax.jit(narrow().init, static_argnames="train")(jax.random.key(1), clips, train=False)


def test_the_network_computes_what_its_layers_say(clips, variables):
    params = jax.tree.map(np.float64, variables["params"])
    x = np.float64(clips)
    for layer in range(5):
        x = reference(x, params[f"Conv_{layer}"]["kernel"]) + params[f"Conv_{layer}"]["bias"]
        x = np.maximum(x, 0)
        if layer < 3:
            n, t, h, w, c = x.shape
            x = x.reshape(n, t // 2, 2, h // 2, 2, w // 2, 2, c).max((2, 4, 6))
    x = x.reshape(4, -1)
    for layer in range(2):
        x = np.maximum(x @ params[f"Dense_{layer}"]["kernel"] + params[f"Dense_{layer}"]["bias"], 0)
    expected = x @ params["Dense_2"]["kernel"] + params["Dense_2"]["bias"]
    logits = jax.jit(narrow().apply, static_argnames="train")(variables, clips, train=False)
    np.testing.assert_allclose(logits, expected, rtol=2e-4, atol=2e-4)


def test_dropout_acts_in_training_alone_and_follows_its_stream(clips, variables):
    @jax.jit
    def logits(variables, clips, key):
        dropping, keeping = narrow(dropout_rate=0.5), narrow(dropout_rate=0.0)
        rngs = {"dropout": key}
        return (
            dropping.apply(variables, clips, train=True, rngs=rngs),
            dropping.apply(variables, clips, train=False),
            keeping.apply(variables, clips, train=True, rngs=rngs),
        )

    first, evaluated, kept = logits(variables, clips, jax.random.key(0))
    again, _, _ = logits(variables, clips, jax.random.key(0))
    other, same, _ = logits(variables, clips, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != other) and np.any(first != evaluated)
    np.testing.assert_array_equal(evaluated, same)
    np.testing.assert_allclose(evaluated, kept, rtol=1e-6)


def test_bfloat16_computes_with_float32_parameters_and_logits(clips, variables):
    model = narrow(dtype=jnp.bfloat16)
    initial = jax.eval_shape(lambda: model.init(jax.random.key(1), clips, train=False))
    assert {leaf.dtype for leaf in jax.tree.leaves(initial)} == {jnp.dtype("float32")}
    half, full = (
        jax.jit(one.apply, static_argnames="train")(variables, clips, train=False)
        for one in (model, narrow())
    )
    assert half.dtype == full.dtype == jnp.float32
    assert 0 < np.abs(half - full).max() < 0.1 * np.abs(full).max()


def test_attributes_reach_the_layers_and_images_are_refused(clips):
    model = narrow(num_classes=7, first_kernel=(3, 5, 5), widths=(4, 4, 4, 4, 4), dense=(9,))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), clips, train=False))["params"]
    assert shapes["Conv_0"]["kernel"].shape == (3, 5, 5, 3, 4)
    assert shapes["Dense_1"]["kernel"].shape == (9, 7)
    assert set(shapes) == {*(f"Conv_{layer}" for layer in range(5)), "Dense_0", "Dense_1"}
    with pytest.raises(ValueError, match=r"clips: got shape \(4, 16, 16, 3\); accepted is"):
        convnet3d.ConvNet3D().init(jax.random.key(0), clips[:, 0], train=False)
