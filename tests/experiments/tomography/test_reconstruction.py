"""Reconstruction: the duality gap is true, the minimum is the minimum, few views need TV."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse

from experiments.tomography import reconstruction
from experiments.tomography.geometry import system_matrix
from optflow_jax import penalties

SIZE, VIEWS, STRENGTH = 12, 5, 0.3


@pytest.fixture(scope="module")
def problem():
    """A small problem in float64: the matrix dense, the sinogram, and what primal_dual found."""
    rng = np.random.default_rng(0)
    image = np.zeros((SIZE, SIZE))
    image[3:8, 4:9] = 1.0
    with jax.enable_x64(True):
        matrix = system_matrix(SIZE, VIEWS, jnp.float64)
        sinogram = (matrix @ image.ravel() + 0.1 * rng.normal(size=VIEWS * SIZE)).reshape(VIEWS, -1)
        solved = reconstruction.primal_dual(matrix, sinogram, STRENGTH, tolerance=1e-5)
        return np.asarray(matrix.todense()), np.asarray(sinogram), jax.tree.map(np.asarray, solved)


def value(dense, sinogram, image):
    """P(V), from its formula."""
    down = np.diff(image, axis=0, append=image[-1:])
    right = np.diff(image, axis=1, append=image[:, -1:])
    residual = dense @ image.ravel() - sinogram.ravel()
    return 0.5 * residual @ residual + STRENGTH * np.sum(np.hypot(down, right))


def test_the_dual_point_is_feasible_and_its_value_is_a_lower_bound(problem):
    dense, sinogram, solved = problem
    q, p = solved.dual
    shape = (SIZE, SIZE)
    D = [np.kron(np.eye(SIZE, k=1) - np.eye(SIZE), np.eye(SIZE))]
    D.append(np.kron(np.eye(SIZE), np.eye(SIZE, k=1) - np.eye(SIZE)))
    border = np.ones((2, *shape))
    border[0, -1], border[1, :, -1] = 0, 0
    left = dense.T @ q + sum(d.T @ (b * x).ravel() for d, b, x in zip(D, border, p, strict=True))
    np.testing.assert_allclose(left, 0, atol=1e-10)
    assert np.max(np.hypot(*p)) <= STRENGTH * (1 + 1e-12)
    bound = -0.5 * q @ q - q @ sinogram.ravel()
    history = solved.history
    assert history["dual"][-1] == pytest.approx(bound, rel=1e-9)
    assert history["objective"][-1] == pytest.approx(value(dense, sinogram, solved.image))
    rng = np.random.default_rng(1)
    for size in (1e-6, 1e-3, 1.0):
        other = solved.image + size * rng.normal(size=shape)
        assert value(dense, sinogram, other) >= bound
    # Each bound on the way is below the minimum, and none of them is far off at the end.
    assert np.all(history["dual"] <= history["objective"][-1] * (1 + 1e-12))
    assert 0 <= solved.gap <= 1e-5 and solved.iterations < 3000


def test_without_a_scanner_it_is_the_proximal_operator_of_total_variation():
    noisy = np.random.default_rng(0).normal(size=(SIZE, SIZE))
    with jax.enable_x64(True):
        identity = sparse.eye(SIZE * SIZE, dtype=jnp.float64)
        solved = reconstruction.primal_dual(identity, noisy, STRENGTH, tolerance=1e-9)
        denoised = penalties.prox_total_variation(jnp.asarray(noisy), STRENGTH, iterations=2000)
    np.testing.assert_allclose(solved.image, denoised, atol=1e-4)


def test_smoothed_descent_comes_near_the_minimum(problem):
    dense, sinogram, solved = problem
    with jax.enable_x64(True):
        matrix = system_matrix(SIZE, VIEWS, jnp.float64)
        found = reconstruction.smoothed_descent(matrix, sinogram, STRENGTH, 1e-3, iterations=1000)
    lowest, reached = solved.history["objective"][-1], found.history["objective"][-1]
    assert reached == pytest.approx(value(dense, sinogram, np.asarray(found.image)))
    assert lowest * (1 - 1e-5) <= reached <= 1.01 * lowest
    assert found.iterations == 1000 and len(found.history["iteration"]) == 20


def test_least_squares_ends_at_the_normal_equations(problem):
    dense, sinogram, _ = problem
    with jax.enable_x64(True):
        matrix = system_matrix(SIZE, VIEWS, jnp.float64)
        iterates = np.asarray(reconstruction.least_squares(matrix, sinogram, iterations=150))
    assert np.all(np.isfinite(iterates))  # also after convergence
    # From zero, conjugate gradients find the solution of least norm.
    expected = np.linalg.lstsq(dense, sinogram.ravel(), rcond=1e-10)[0]
    np.testing.assert_allclose(iterates[-1].ravel(), expected, atol=1e-6)
    errors = [0.5 * np.sum((dense @ x.ravel() - sinogram.ravel()) ** 2) for x in iterates[:20]]
    assert np.all(np.diff(errors) < 1e-12)


def test_filtered_back_projection_finds_a_disc_from_many_views():
    size = 32
    y, x = np.mgrid[:size, :size] - size // 2
    disc = (x**2 + y**2 < 10.5**2).astype(np.float32)
    sinogram = (system_matrix(size, 90) @ jnp.asarray(disc.ravel())).reshape(90, size)
    image = reconstruction.filtered_back_projection(np.asarray(sinogram))
    assert image[x**2 + y**2 < 8**2].mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(image[x**2 + y**2 < 8**2], 1, atol=0.1)
