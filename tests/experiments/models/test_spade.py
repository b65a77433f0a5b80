"""SPADE's generator and discriminator: parameters, sizes, and what they compute, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import channel_grad
from experiments.models import patch_discriminator, spade

SHAPE = (2, 6, 10)


def drawn(module, *arguments, seed=0):
    """Variables of a module: kernels of a usual scale, everything else away from 0 and 1."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *arguments, train=False))

    def draw(leaf):
        if leaf.ndim <= 1:
            return np.float32(rng.uniform(0.5, 1.5, leaf.shape))
        return np.float32(rng.normal(0, 1 / np.sqrt(np.prod(leaf.shape[:-1])), leaf.shape))

    return jax.tree.map(draw, shapes)


def convolve(x, layer, stride=1, padding=1):
    """The sum that defines a convolution with a border of zeros."""
    kernel = np.float64(layer["kernel"])
    window = kernel.shape[0]
    x = np.pad(np.float64(x), ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows, columns = (x.shape[axis] - window + 1 for axis in (1, 2))
    total = sum(
        x[:, i : i + rows : stride, j : j + columns : stride] @ kernel[i, j]
        for i in range(window)
        for j in range(window)
    )
    return total + np.float64(layer.get("bias", 0))


def normalised(kernel, u):
    """W / sigma(W) by one step of power iteration from u, and the next u."""
    matrix = np.float64(kernel).reshape(-1, kernel.shape[-1])
    v = matrix @ np.float64(u).ravel()
    v /= np.linalg.norm(v)
    u = v @ matrix
    sigma = np.linalg.norm(u)
    return kernel / sigma, u / sigma


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)


def sizes_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def networks_of_the_paper():
    condition, images = jnp.zeros((1, 256, 512, 36)), jnp.zeros((1, 256, 512, 3))
    generator, discriminator = spade.Generator(), patch_discriminator.MultiscaleDiscriminator()

    def compute(module, *arguments):
        return jax.eval_shape(
            lambda: module.init_with_output(jax.random.key(0), *arguments, train=False)
        )

    return compute(generator, condition), compute(discriminator, images, condition)


def test_the_networks_of_the_paper_have_their_parameters(networks_of_the_paper):
    (image, generator), (scales, discriminator) = networks_of_the_paper
    assert image.shape == (1, 256, 512, 3)
    # By arithmetic from the layers: SPADE with 128 hidden channels, three to a block with a skip.
    widths = [1024, 1024, 1024, 1024, 512, 256, 128, 64]
    total = 36 * 9 * 1024 + 1024
    for first, second in zip(widths, widths[1:], strict=False):
        middle = min(first, second)
        modulation = lambda c: 36 * 9 * 128 + 128 + 2 * (128 * 9 * c + c)  # noqa: E731
        total += modulation(first) + modulation(middle)
        total += 9 * first * middle + middle + 9 * middle * second + second
        total += (modulation(first) + first * second) * (first != second)
    total += 9 * 64 * 3 + 3
    assert sizes_of(generator["params"]) == total == 93_048_003
    channels = [39, 64, 128, 256, 512]
    each = sum(16 * a * b for a, b in zip(channels, channels[1:], strict=False))
    each += 64 + 16 * 512 + 1  # biases of the first and the last layer
    assert sizes_of(discriminator["params"]) == 2 * each == 5_601_410
    # Convolutions of 4x4 with a border of 2, three of them with stride 2: 257 rows, 129, 65, ...
    assert [scale[-1].shape for scale in scales] == [(1, 35, 67, 1), (1, 19, 35, 1)]
    assert [x.shape[-1] for x in scales[0]] == [64, 128, 256, 512, 1]


def test_a_metric_acts_on_every_convolution(networks_of_the_paper):
    for (_, variables), count in zip(networks_of_the_paper, (74, 10), strict=True):
        params = variables["params"]
        axes = channel_grad.output_axes.resolve(params)
        kernels = [x for x in jax.tree_util.tree_leaves_with_path(params) if x[1].ndim == 4]
        assert len(kernels) == count
        assert all(axes[path] == (3,) for path, _ in kernels), axes


def test_spectral_norm_is_where_the_paper_has_it(networks_of_the_paper):
    (_, generator), (_, discriminator) = networks_of_the_paper

    def places(tree):
        return {
            "/".join(entry.key for entry in path[:-1]) + "/" + path[-1].key.split("/")[0]
            for path, _ in jax.tree_util.tree_leaves_with_path(tree["spectral"])
        }

    skips = {f"Block_{i}/skip_spectral/skip" for i in (3, 4, 5, 6)}
    convolutions = {f"Block_{i}/conv_{j}_spectral/conv_{j}" for i in range(7) for j in (0, 1)}
    assert places(generator) == skips | convolutions
    assert places(discriminator) == {
        f"PatchDiscriminator_{i}/conv_{j}_spectral/conv_{j}" for i in (0, 1) for j in (1, 2, 3)
    }


def test_the_quick_initialisation_is_that_of_the_modules():
    condition = jnp.zeros((1, 8, 8, 6))
    model = spade.Generator(width=8)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), condition, train=False))
    found = spade.initialize(jax.random.key(1), shapes)
    assert jax.tree.structure(found) == jax.tree.structure(shapes)
    again = spade.initialize(jax.random.key(1), shapes)
    for (path, leaf), same, shape in zip(
        jax.tree_util.tree_leaves_with_path(found),
        jax.tree.leaves(again),
        jax.tree.leaves(shapes),
        strict=True,
    ):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        np.testing.assert_array_equal(leaf, same)
        name = path[-1].key.split("/")[-1]
        if name == "kernel":
            # Glorot's normal numbers, 0.02 times.
            rest = leaf.size // leaf.shape[-1]
            outputs = leaf.size // leaf.shape[-2]
            deviation = 0.02 * np.sqrt(2 / (rest + outputs))
            assert np.std(leaf) == pytest.approx(deviation, rel=6 / np.sqrt(2 * leaf.size))
            assert abs(np.mean(leaf)) < 6 * deviation / np.sqrt(leaf.size)
        elif name == "u":
            assert np.std(leaf) == pytest.approx(1, rel=6 / np.sqrt(2 * leaf.size))
        else:
            assert set(np.ravel(leaf)) == {1.0 if name in ("var", "sigma") else 0.0}
    kernels = (
        found["params"]["Block_0"]["conv_0"]["kernel"],
        found["params"]["Block_0"]["conv_1"]["kernel"],
    )
    assert np.any(kernels[0] != kernels[1])


@pytest.mark.parametrize(
    ("height", "width", "first"),
    [(256, 512, (4, 8)), (64, 64, (4, 4)), (18, 30, (5, 8)), (3, 50, (3, 50)), (1024, 2048, None)],
)
def test_any_size_is_reached_by_doublings(height, width, first):
    sizes = spade.resolutions(height, width)
    assert sizes[-1] == (height, width) and len(sizes) <= 7
    assert sizes[0] == (first or (16, 32))
    for small, large in zip(sizes, sizes[1:], strict=False):
        assert small == tuple(-(-side // 2) for side in large)
    condition = jax.ShapeDtypeStruct((1, height, width, 2), jnp.float32)
    model = spade.Generator(width=1)
    image, _ = jax.eval_shape(
        lambda c: model.init_with_output(jax.random.key(0), c, train=False), condition
    )
    assert image.shape == (1, height, width, 3)


@pytest.mark.parametrize(("had", "wanted"), [(12, 4), (7, 3), (5, 9), (5, 10), (4, 12), (9, 6)])
def test_nearest_takes_the_pixel_below(had, wanted):
    x = np.arange(2 * had * 3, dtype=np.float32).reshape(1, 2, had, 3)
    chosen = [int(np.floor(i * had / wanted)) for i in range(wanted)]
    np.testing.assert_array_equal(spade.nearest(x, (2, wanted)), x[:, :, chosen])
    turned = x.transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(spade.nearest(turned, (wanted, 2)), turned[:, chosen])


def test_a_block_computes_the_equations_of_the_paper():
    rng = np.random.default_rng(0)
    x = rng.normal(1, 2, (*SHAPE, 5)).astype(np.float32)
    labels = rng.normal(0, 1, (SHAPE[0], 12, 20, 4)).astype(np.float32)
    block = spade.Block(channels=3, hidden=4)
    variables = drawn(block, x, labels)

    @jax.jit
    def compute(variables):
        return block.apply(variables, x, labels, train=True, mutable=["batch_stats", "spectral"])

    found, changed = compute(variables)
    params, singular = variables["params"], variables["spectral"]

    def modulated(x, name):
        p, condition = params[name], labels[:, ::2, ::2]
        mean, variance = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        hidden = np.maximum(0, convolve(condition, p["shared"]))
        gamma, beta = convolve(hidden, p["gamma"]), convolve(hidden, p["beta"])
        return (x - mean) / np.sqrt(variance + 1e-5) * (1 + gamma) + beta, (mean, variance)

    def convolved(x, name, padding=1):
        kernel, u = normalised(
            params[name]["kernel"], singular[f"{name}_spectral"][f"{name}/kernel/u"]
        )
        kept = changed["spectral"][f"{name}_spectral"][f"{name}/kernel/u"]
        np.testing.assert_allclose(kept.ravel(), u, atol=1e-5)
        return convolve(x, {**params[name], "kernel": kernel}, padding=padding)

    y, (mean, variance) = modulated(np.float64(x), "modulation_0")
    y = convolved(leaky(y), "conv_0")
    y, _ = modulated(y, "modulation_1")
    y = convolved(leaky(y), "conv_1")
    skip, _ = modulated(np.float64(x), "modulation_skip")
    assert "bias" not in params["skip"]
    np.testing.assert_allclose(found, y + convolved(skip, "skip", padding=0), atol=1e-3)
    before = variables["batch_stats"]["modulation_0"]["BatchNorm_0"]
    after = changed["batch_stats"]["modulation_0"]["BatchNorm_0"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["mean"] + 0.1 * mean, rtol=1e-4)
    np.testing.assert_allclose(after["var"], 0.9 * before["var"] + 0.1 * variance, rtol=1e-4)


def test_the_discriminator_computes_its_layers():
    rng = np.random.default_rng(1)
    images = rng.normal(0, 1, (2, 13, 18, 3)).astype(np.float32)
    labels = rng.normal(0, 1, (2, 13, 18, 2)).astype(np.float32)
    model = patch_discriminator.MultiscaleDiscriminator(width=2)
    variables = drawn(model, images, labels)
    found = jax.jit(lambda v: model.apply(v, images, labels, train=False))(variables)

    x = np.concatenate([labels, images], axis=-1).astype(np.float64)
    ones = np.ones((1, 13, 18, 1))
    pooled, seen = (
        sum(
            np.pad(z, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 13 : 2, j : j + 18 : 2]
            for i in range(3)
            for j in range(3)
        )
        for z in (x, ones)
    )
    for scale, start in enumerate((x, pooled / seen)):
        params = variables["params"][f"PatchDiscriminator_{scale}"]
        singular = variables["spectral"][f"PatchDiscriminator_{scale}"]
        expected = [leaky(convolve(start, params["conv_0"], stride=2, padding=2))]
        for index, stride in ((1, 2), (2, 2), (3, 1)):
            name = f"conv_{index}"
            kernel, _ = normalised(
                params[name]["kernel"], singular[f"{name}_spectral"][f"{name}/kernel/u"]
            )
            y = convolve(expected[-1], {"kernel": kernel}, stride=stride, padding=2)
            mean, variance = (z(y, axis=(1, 2), keepdims=True) for z in (np.mean, np.var))
            expected.append(leaky((y - mean) / np.sqrt(variance + 1e-5)))
        expected.append(convolve(expected[-1], params["scores"], padding=2))
        for a, b in zip(found[scale], expected, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-3)
