"""Correlation between filters: kernels whose correlation is known."""

import doctest

import jax.numpy as jnp
import numpy as np
import pytest

from channel_grad import correlation


def independent(shape=(3, 3, 24, 20), seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def autoregressive(rho, shape, axis, seed=0):
    """Gaussian weights with E[w_i w_j] = rho^|i - j| along an axis, independent otherwise."""
    noise = np.moveaxis(np.random.default_rng(seed).normal(size=shape), axis, 0)
    w = noise.copy()
    for i in range(1, len(w)):
        w[i] = rho * w[i - 1] + np.sqrt(1 - rho**2) * noise[i]
    return np.moveaxis(w, 0, axis)


OUTPUT, INPUT = {"axis": -1, "other": -2}, {"axis": -2, "other": -1}


@pytest.mark.parametrize("axes", [OUTPUT, INPUT])
def test_independent_filters_are_inside_the_interval_of_chance_as_often_as_it_says(axes):
    inside, p_values = [], []
    for seed in range(40):
        matrix = correlation.matrix(independent((3, 3, 24, 24), seed), **axes)
        test = correlation.permutation_test(matrix, max_distance=8, samples=199, seed=seed)
        inside += list((test.low <= test.by_distance) & (test.by_distance <= test.high))
        p_values.append(test.p_value)
    # 95 % of 320 within four binomial deviations of 1.2 %.
    assert abs(np.mean(inside) - 0.95) < 0.049
    # Uniform p-values: 40 of them have a mean of 0.5 within four deviations, 4 x 0.289 / sqrt(40).
    assert abs(np.mean(p_values) - 0.5) < 0.18


@pytest.mark.parametrize("axes", [OUTPUT, INPUT])
@pytest.mark.parametrize("rho", [0.9, 0.5, -0.6])
def test_an_autoregressive_process_has_correlation_rho_to_the_distance(axes, rho):
    # 40 channels compared, each a vector of 9 x 400 weights: the deviation of a cosine is 1 / 60,
    # and that of the mean of 30 or more pairs below that.
    shape = (3, 3, 400, 40) if axes is OUTPUT else (3, 3, 40, 400)
    kernel = autoregressive(rho, shape, axes["axis"])
    found = correlation.by_distance(correlation.matrix(kernel, **axes), max_distance=8)
    np.testing.assert_allclose(found, rho ** np.arange(1, 9), atol=0.02)
    # The other direction is independent; its vectors hold few independent weights at rho = 0.9.
    across = {"axis": axes["other"], "other": axes["axis"]}
    rest = correlation.by_distance(correlation.matrix(kernel, **across), max_distance=8)
    np.testing.assert_allclose(rest, 0, atol=0.06)


def test_filters_that_are_smooth_along_outputs_rise_towards_distance_zero():
    window = np.exp(-0.5 * (np.arange(-6, 7) / 2) ** 2)
    noise = independent((3, 3, 30, 76))
    smooth = np.apply_along_axis(np.convolve, -1, noise, window, mode="valid")
    matrix = correlation.matrix(smooth, **OUTPUT)
    found = correlation.by_distance(matrix, max_distance=6)
    # The autocorrelation of a Gaussian of deviation s is one of deviation s sqrt(2).
    np.testing.assert_allclose(found, np.exp(-(np.arange(1, 7) ** 2) / 16), atol=0.05)
    assert np.all(np.diff(found) < 0)
    assert correlation.permutation_test(matrix, "order", samples=199).p_value == 1 / 200


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e30])
def test_rescaling_channels_changes_nothing(size):
    rng = np.random.default_rng(1)
    kernel = autoregressive(0.7, (3, 3, 10, 12), -1) + 0.3
    outputs, inputs = np.exp(2 * rng.normal(size=12)), np.exp(2 * rng.normal(size=(10, 1)))
    for axes in (OUTPUT, INPUT):
        expected = correlation.matrix(kernel, **axes)
        scaled = correlation.matrix(size * kernel * outputs * inputs, **axes)
        np.testing.assert_allclose(scaled, expected, atol=1e-9)
    # A negative factor is no rescaling.
    flipped = correlation.matrix(kernel * np.where(np.arange(12) == 3, -1, 1), **OUTPUT)
    np.testing.assert_allclose(flipped[3, :3], -correlation.matrix(kernel, **OUTPUT)[3, :3])


def test_balance_gives_every_channel_mean_square_one():
    kernel = independent((2, 3, 5, 7)) * np.exp(independent((1, 1, 5, 7), 1))
    g = correlation.balance(kernel)
    np.testing.assert_allclose(np.mean(g**2, axis=(0, 1, 2)), 1, rtol=1e-9)
    np.testing.assert_allclose(np.mean(g**2, axis=(0, 1, 3)), 1, rtol=1e-9)
    alone = correlation.balance(kernel, -1, None)
    np.testing.assert_allclose(np.mean(alone**2, axis=(0, 1, 2)), 1, rtol=1e-12)
    # Only a factor for each channel was applied.
    ratio = (g / kernel)[0, 0]
    np.testing.assert_allclose(g / kernel, np.broadcast_to(ratio, g.shape), rtol=1e-12)
    assert np.linalg.matrix_rank(ratio, rtol=1e-9) == 1


def test_layouts_and_array_types_agree():
    kernel = independent((3, 2, 5, 7)).astype(np.float32)
    torch = np.transpose(kernel, (3, 2, 0, 1))
    expected = correlation.matrix(kernel, **OUTPUT)
    assert expected.dtype == np.float64 and expected.shape == (7, 7)
    for other in (correlation.matrix(torch, 0, 1), correlation.matrix(jnp.asarray(kernel))):
        np.testing.assert_allclose(other, expected, atol=1e-12)
    inputs = correlation.matrix(torch, axis=1, other=0)
    np.testing.assert_allclose(inputs, correlation.matrix(kernel, **INPUT), atol=1e-12)
    assert correlation.matrix(jnp.asarray(kernel, jnp.bfloat16)).dtype == np.float64


def test_a_shared_component_is_correlation_without_order():
    # f = a shared pattern + noise of equal power: C = 1/2 at all distances along the outputs.
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(3, 3, 100, 1)) + rng.normal(size=(3, 3, 100, 30))
    outputs, inputs = (correlation.matrix(kernel, **axes) for axes in (OUTPUT, INPUT))
    np.testing.assert_allclose(correlation.by_distance(outputs, 20), 0.5, atol=0.05)
    signs = correlation.permutation_test(outputs, "signs", samples=199)
    assert signs.p_value == 1 / 200 and abs(signs.chance) < 0.02
    assert np.all(signs.by_distance[:20] > signs.high[:20])
    order = correlation.permutation_test(outputs, "order", samples=199)
    assert order.p_value > 0.01 and order.mean == signs.mean
    # Along the inputs it widens the histogram and leaves its mean at zero (figure 13).
    assert abs(correlation.permutation_test(inputs, samples=199).mean) < 0.02
    density, edges = correlation.histogram(outputs, bins=40)
    centres = (edges[1:] + edges[:-1]) / 2
    np.testing.assert_allclose(density.sum() * 0.05, 1)
    np.testing.assert_allclose(np.sum(density * centres) * 0.05, signs.mean, atol=0.03)


@pytest.mark.parametrize("rest", [0, 1e-30, 1e-7])
def test_dead_filters_are_left_out_and_keep_their_place(rest):
    kernel = autoregressive(0.8, (3, 3, 300, 9), -1)
    kernel[..., [2, 5]] *= rest
    matrix = correlation.matrix(kernel)
    assert np.isnan(matrix[2]).all() and np.isnan(matrix[:, 5]).all()
    assert np.isfinite(np.delete(np.delete(matrix, [2, 5], 0), [2, 5], 1)).all()
    found = correlation.by_distance(matrix)
    np.testing.assert_allclose(found, 0.8 ** np.arange(1, 9), atol=0.05)
    kernel[:, :, 7] *= rest  # A dead input channel does no harm.
    np.testing.assert_allclose(
        correlation.by_distance(correlation.matrix(kernel)), found, atol=0.02
    )
    for null in ("signs", "order"):
        assert correlation.permutation_test(matrix, null, samples=99).p_value <= 0.05


def test_kernels_with_nothing_to_compare():
    zero = correlation.matrix(np.zeros((3, 3, 2, 4)))
    assert np.isnan(correlation.by_distance(zero)).all()
    assert correlation.histogram(zero)[0].sum() == 0
    assert np.isnan(correlation.permutation_test(zero).p_value)
    single = correlation.matrix(np.ones((3, 3, 2, 1)))
    assert correlation.by_distance(single).shape == (0,)
    assert np.isnan(correlation.permutation_test(single).mean)


def test_mean_and_deviation_along_outputs():
    kernel = independent((3, 3, 4, 50)) * np.arange(1.0, 5)[:, None] + 2
    means, deviations = correlation.mean_and_deviation(kernel)
    assert means.shape == deviations.shape == (36,)
    np.testing.assert_allclose(means.reshape(3, 3, 4), kernel.mean(axis=-1))
    np.testing.assert_allclose(deviations.reshape(3, 3, 4), kernel.std(axis=-1, ddof=1))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: correlation.matrix(np.ones((3, 4)), axis=2), r"axis: got 2; accepted: an axis of"),
        (lambda: correlation.matrix(np.ones((3, 4)), other=5), "other: got 5; accepted"),
        (lambda: correlation.matrix(np.ones((3, 4)), 0, -2), "other: got -2; accepted: None, or"),
        (lambda: correlation.matrix(np.ones((0, 4))), r"kernel: got shape \(0, 4\); accepted"),
        (lambda: correlation.matrix([[1, np.nan]]), "kernel: got NaN or infinity; accepted"),
        (lambda: correlation.by_distance(np.ones(3)), r"matrix: got shape \(3,\); accepted"),
        (lambda: correlation.by_distance(np.eye(3), 3), "max_distance: got 3; accepted: 1 to 2"),
        (lambda: correlation.permutation_test(np.eye(3), "none"), "null: got 'none'; accepted"),
        (lambda: correlation.permutation_test(np.eye(3), samples=0), "samples: got 0; accepted"),
        (lambda: correlation.mean_and_deviation(np.ones((3, 1))), "axis: got 1 of length 1; acc"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_examples_of_the_docstrings_run():
    result = doctest.testmod(correlation)
    assert result.attempted > 8 and result.failed == 0
