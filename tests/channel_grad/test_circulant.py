"""The three algorithms against dense float64 references written from the equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from channel_grad._circulant import (
    GreenCirculant,
    SpectralCirculant,
    _choose,
    apply_circulant,
    green_kernel,
)

LENGTHS = (1, 2, 3, 16, 31, 32, 33, 65, 127, 256, 513)
GREEN = GreenCirculant(identity=0.3, mean=2.0, green=1.5)
SMOOTHING = SpectralCirculant(lambda t: 1 / (1 + 2.0 * t))
apply = jax.jit(apply_circulant, static_argnums=(1, 2, 3))


def laplacian(n):
    """The periodic [1, -2, 1] as a matrix; for n = 1 and 2 the neighbours coincide."""
    eye = np.eye(n)
    return np.roll(eye, 1, axis=0) + np.roll(eye, -1, axis=0) - 2 * eye


def smooth_part(n):
    """S, the pseudo-inverse of -n^2 Laplacian, whose null space are the constants.

    The mean M in place of zero there makes the matrix invertible, and its inverse is M there.
    """
    mean = np.ones((n, n)) / n
    return (np.linalg.inv(mean - laplacian(n)) - mean) / n**2


def green_matrix(n):
    """0.3 I + 2 M + 1.5 S, by linear algebra."""
    return 0.3 * np.eye(n) + 2.0 / n * np.ones((n, n)) + 1.5 * smooth_part(n)


def smoothing_matrix(n):
    return np.linalg.inv(np.eye(n) - 2.0 * laplacian(n))


CASES = [(GREEN, green_matrix, method) for method in ("auto", "dense", "fft", "prefix")] + [
    (SMOOTHING, smoothing_matrix, method) for method in ("auto", "dense", "fft")
]
IDS = [f"{matrix.__name__}-{method}" for _, matrix, method in CASES]


@pytest.mark.parametrize(("operator", "matrix", "method"), CASES, ids=IDS)
def test_agrees_with_linear_algebra_in_float64(operator, matrix, method):
    with jax.enable_x64(True):
        for n in LENGTHS:
            f = np.random.default_rng(n).normal(size=(3, n))
            expected = f @ matrix(n)
            np.testing.assert_allclose(apply(f, operator, -1, method), expected, rtol=0, atol=2e-12)


@pytest.mark.parametrize(("operator", "matrix", "method"), CASES, ids=IDS)
def test_float32_is_close_to_round_off(operator, matrix, method):
    for n in (3, 33, 64, 513):
        f = np.random.default_rng(n).normal(size=(5, n)).astype(np.float32)
        expected = f.astype(np.float64) @ matrix(n)
        error = np.abs(apply(f, operator, -1, method) - expected).max()
        assert error <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["dense", "fft", "prefix"])
def test_smooth_part_alone_keeps_its_digits_in_float32(method):
    """Where S f is small beside f, the error is that of a sum of n terms, not of a double sum."""
    for n in (64, 512):
        f = np.random.default_rng(n).normal(size=(64, n)).astype(np.float32)
        expected = f.astype(np.float64) @ smooth_part(n)
        g = apply(f, GreenCirculant(0.0, 0.0, 1.0), -1, method)
        assert np.abs(g - expected).max() <= 4e-6 * np.abs(expected).max()


@pytest.mark.parametrize("method", ["dense", "fft", "prefix"])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_axis(method, axis):
    f = np.random.default_rng(0).normal(size=(40, 36, 33)).astype(np.float32)
    n = f.shape[axis]
    expected = np.moveaxis(np.moveaxis(f, axis, -1) @ green_matrix(n), -1, axis)
    np.testing.assert_allclose(apply_circulant(f, GREEN, axis, method), expected, rtol=0, atol=1e-5)


def test_kernel_and_eigenvalues_are_a_fourier_pair():
    with jax.enable_x64(True):
        for n in (1, 2, 33, 256):
            for operator in (GREEN, SMOOTHING, GreenCirculant(0.5, 3.0)):
                kernel = operator.kernel(n, jnp.float64)
                np.testing.assert_allclose(
                    np.fft.rfft(kernel), operator.eigenvalues(n, jnp.float64), rtol=0, atol=1e-13
                )
                np.testing.assert_allclose(operator.matrix(n, jnp.float64)[:, 0], kernel)


def test_green_kernel_by_hand():
    # n = 2: the only frequency, k = 1, has the eigenvalue 1 / (4 * 4) = 1/16: kernel [1, -1] / 32.
    np.testing.assert_allclose(green_kernel(2), [1 / 32, -1 / 32])
    np.testing.assert_allclose(green_kernel(1), [0.0], atol=1e-17)


@pytest.mark.parametrize("method", ["dense", "fft", "prefix"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_values_stay_in_their_line(method, bad):
    f = np.random.default_rng(0).normal(size=(4, 70)).astype(np.float32)
    clean = apply_circulant(f, GREEN, -1, method)
    f[2, 5] = bad
    g = np.asarray(apply_circulant(f, GREEN, -1, method))
    assert not np.isfinite(g[2]).any()
    np.testing.assert_allclose(np.delete(g, 2, axis=0), np.delete(clean, 2, axis=0), rtol=1e-6)


@pytest.mark.parametrize("method", ["dense", "fft", "prefix"])
def test_zeros_and_empty_arrays(method):
    np.testing.assert_array_equal(apply_circulant(np.zeros((2, 70)), GREEN, -1, method), 0)
    assert apply_circulant(np.zeros((0, 70)), GREEN, -1, method).shape == (0, 70)
    assert apply_circulant(np.zeros((3, 0)), GREEN, -1, method).shape == (3, 0)


def test_numbers_may_be_traced_and_nothing_is_compiled_anew():
    compiled = 0

    @jax.jit
    def by_all_methods(f, identity, mean, green):
        nonlocal compiled
        compiled += 1
        operator = GreenCirculant(identity, mean, green)
        return [apply_circulant(f, operator, -1, method) for method in ("dense", "fft", "prefix")]

    f = np.random.default_rng(0).normal(size=(2, 65)).astype(np.float32)
    for numbers in ((0.3, 2.0, 1.5), (1.0, 0.0, 0.5)):
        expected = apply_circulant(f, GreenCirculant(*numbers), -1, "dense")
        for g in by_all_methods(f, *numbers):
            np.testing.assert_allclose(g, expected, atol=1e-5)
    assert compiled == 1


@pytest.mark.parametrize("method", ["dense", "fft", "prefix"])
def test_derivative_is_the_operator_itself(method):
    """A symmetric linear map is its own derivative, forwards and backwards."""
    f, k = np.random.default_rng(0).normal(size=(2, 3, 65)).astype(np.float32)
    g, backwards = jax.vjp(lambda f: apply_circulant(f, GREEN, -1, method), f)
    np.testing.assert_allclose(backwards(f)[0], g, atol=1e-5)
    _, forwards = jax.jvp(lambda f: apply_circulant(f, GREEN, -1, method), (k,), (f,))
    np.testing.assert_allclose(forwards, g, atol=1e-5)


def test_long_axes_never_take_the_dense_product():
    for n in (10_000, 2_359_296):
        assert _choose(GREEN, n, "auto") == "fft"
        assert _choose(SMOOTHING, n, "auto") == "fft"
    assert _choose(GreenCirculant(1.0, 1.0), 2_359_296, "auto") == "prefix"
    f = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    g = apply_circulant(f, SMOOTHING)
    residual = g + 2.0 * (2 * g - np.roll(g, 1) - np.roll(g, -1)) - f
    assert np.abs(residual).max() < 1e-5


@pytest.mark.parametrize(
    ("operator", "n", "method", "message"),
    [
        (GREEN, 8, "quick", "method: got 'quick'; accepted: auto, dense, fft, prefix"),
        (SMOOTHING, 8, "prefix", "accepted here: auto, dense, fft"),
        (GREEN, 5000, "prefix", "length 5000.*4096"),
    ],
)
def test_errors(operator, n, method, message):
    with pytest.raises(ValueError, match=message):
        apply_circulant(np.zeros((1, n), np.float32), operator, -1, method)


def test_an_axis_that_is_not_there():
    with pytest.raises(ValueError, match=r"axis: got 2 for .*\(2, 3\).*-2 to 1"):
        apply_circulant(np.zeros((2, 3)), GREEN, 2)
