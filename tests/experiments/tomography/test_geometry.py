"""The system matrix: chords, the adjoint, scikit-image's radon, scans with Poisson noise."""

import jax.numpy as jnp
import numpy as np
import pytest
from skimage.transform import radon

from experiments.tomography import geometry, scans


def disc(size, radius, center=None, over=8):
    """The share of each pixel that a disc covers."""
    center = size // 2 if center is None else center
    places = (np.arange(size * over) + 0.5) / over - 0.5 - center
    inside = places[:, None] ** 2 + places[None, :] ** 2 <= radius**2
    return inside.reshape(size, over, size, over).mean((1, 3))


@pytest.fixture(scope="module")
def matrix():
    return geometry.system_matrix(32, views=12)


def test_rays_through_a_disc_have_the_lengths_of_its_chords(matrix):
    sinogram = np.asarray(matrix @ jnp.asarray(disc(32, 11.0).ravel(), jnp.float32)).reshape(12, 32)
    t = np.arange(32) - 16
    chords = 2 * np.sqrt(np.maximum(0, 11.0**2 - t**2))
    # Interpolation blurs the border by about a pixel, where a chord grows fastest.
    inner = np.abs(t) <= 9
    np.testing.assert_allclose(
        sinogram[:, inner], np.broadcast_to(chords[inner], (12, inner.sum())), atol=0.9
    )
    np.testing.assert_allclose(sinogram[:, np.abs(t) >= 13], 0)
    np.testing.assert_allclose(sinogram.sum(axis=1), np.pi * 11**2, rtol=0.03)


def test_the_adjoint_is_the_transpose(matrix):
    rng = np.random.default_rng(0)
    image, sinogram = rng.normal(size=32 * 32), rng.normal(size=12 * 32)
    weights, indices = np.asarray(matrix.data, np.float64), np.asarray(matrix.indices)
    dense = np.zeros(matrix.shape)
    dense[indices[:, 0], indices[:, 1]] = weights
    assert np.count_nonzero(dense) == len(weights)  # no entry is there twice
    np.testing.assert_allclose(
        matrix @ jnp.asarray(image, jnp.float32), dense @ image, rtol=0, atol=2e-4
    )
    np.testing.assert_allclose(
        jnp.asarray(sinogram, jnp.float32) @ matrix, sinogram @ dense, rtol=0, atol=2e-4
    )


def test_the_geometry_is_that_of_scikit_image(matrix):
    image = np.zeros((32, 32))
    image[8:14, 17:25] = 1.0  # without any symmetry
    ours = np.asarray(matrix @ jnp.asarray(image.ravel(), jnp.float32)).reshape(12, 32)
    theirs = radon(image, theta=np.degrees(geometry.view_angles(12)), circle=True).T
    places = np.arange(32)

    def centers(sinogram):
        return sinogram @ places / sinogram.sum(axis=1)

    np.testing.assert_allclose(centers(ours), centers(theirs), atol=0.05)
    np.testing.assert_allclose(ours, theirs, atol=1.0)  # of at most 10


def test_a_fine_image_is_projected_about_the_same_center(matrix):
    coarse = np.zeros((32, 32))
    coarse[8:14, 17:25] = 1.0
    fine = np.kron(coarse, np.ones((2, 2)))
    ours = np.asarray(matrix @ jnp.asarray(coarse.ravel(), jnp.float32)).reshape(12, 32)
    finely = geometry.project_finely(fine, views=12, factor=2)
    np.testing.assert_allclose(finely.sum(axis=1), 48, rtol=0.05)
    places = np.arange(32)
    np.testing.assert_allclose(
        finely @ places / finely.sum(axis=1), ours @ places / ours.sum(axis=1), atol=0.05
    )


def test_noise_is_that_of_counted_photons():
    integrals = np.full(200_000, 20.0)
    dose, attenuation = 400.0, 0.05
    noisy = scans.with_noise(integrals, dose, attenuation, np.random.default_rng(0))
    photons = dose * np.exp(-1.0)
    # log N has variance 1 / photons, mean log(photons) - 1 / (2 photons), up to 1 / photons^2.
    sampling = 1 / (attenuation * np.sqrt(photons * len(integrals)))
    mean = 20.0 + 1 / (2 * photons * attenuation)
    assert abs(noisy.mean() - mean) < 4 * sampling + 1 / (attenuation * photons**2)
    assert noisy.std() == pytest.approx(1 / (attenuation * np.sqrt(photons)), rel=0.02)
    blocked = scans.with_noise(np.array([1e4]), dose, attenuation, np.random.default_rng(0))
    np.testing.assert_allclose(blocked, np.log(dose) / attenuation)  # a photon, not infinity


def test_the_images_fit_into_the_circle_that_all_views_see():
    for name in scans.IMAGES:
        measured = scans.scan(name, size=16, views=2, dose=1e9)
        assert measured.truth.shape == (16, 16) and measured.sinogram.shape == (2, 16)
        y, x = np.mgrid[:16, :16] - 8
        assert not measured.truth[np.hypot(x, y) > 8].any()
        assert measured.truth.max() > 0.3
        # All of the image is measured in every view.
        np.testing.assert_allclose(measured.sinogram.sum(1), measured.truth.sum(), rtol=0.03)
        assert measured.noise < 0.01
