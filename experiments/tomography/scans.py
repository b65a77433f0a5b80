"""Images, and what a scanner measures of them: line integrals with Poisson noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from experiments.system.errors import ConfigError
from experiments.tomography.geometry import project_finely

IMAGES = ("shepp_logan", "camera")
FACTOR = 2  # fine pixels for each side of a reconstructed one
# A pixel of value 1 attenuates like water at diagnostic energies, 0.2 / cm, and the field of view
# is 20 cm wide.
WATER, FIELD_OF_VIEW = 0.2, 20.0


class Scan(NamedTuple):
    """An image and its measurement.

    Attributes:
      truth: (n, n), 0 outside the circle that all views see.
      sinogram: S, (views, n), line integrals in pixels, with noise.
      noise: standard deviation of the noise in S.
    """

    truth: np.ndarray
    sinogram: np.ndarray
    noise: float


def fine_image(name: str, size: int) -> np.ndarray:
    """A test image on the fine grid, (FACTOR size, FACTOR size), values from 0 to 1.

    Args:
      name: "shepp_logan" (the head phantom) or "camera" (a photograph), from scikit-image.
      size: of the image that is reconstructed.

    Raises:
      ConfigError: another name.
    """
    from skimage import data, transform

    if name not in IMAGES:
        raise ConfigError("images", repr(name), ", ".join(IMAGES))
    image = data.shepp_logan_phantom() if name == "shepp_logan" else data.camera() / 255.0
    fine = FACTOR * size
    image = np.clip(transform.resize(image, (fine, fine), anti_aliasing=True), 0, 1)
    center = FACTOR * (size // 2) + (FACTOR - 1) / 2
    y, x = np.mgrid[:fine, :fine] - center
    return np.where(x**2 + y**2 < (FACTOR * (size // 2 - 1)) ** 2, image, 0.0)


def scan(name: str, size: int, views: int, dose: float, seed: int = 0) -> Scan:
    """Measures an image.

    A bin counts photons, N ~ Poisson(dose exp(-mu S)), and what is known of the line integral is
    -log(N / dose) / mu, with mu the attenuation of a pixel of value 1.

    Args:
      name: one of IMAGES.
      size: n, of the reconstructed image and of the detector.
      views: how many, over half a turn.
      dose: photons that are sent to each bin of each view.
      seed: of the noise.
    """
    fine = fine_image(name, size)
    exact = project_finely(fine, views, FACTOR)
    noisy = with_noise(exact, dose, WATER * FIELD_OF_VIEW / size, np.random.default_rng(seed))
    truth = fine.reshape(size, FACTOR, size, FACTOR).mean(axis=(1, 3))
    return Scan(truth, noisy, float(np.std(noisy - exact)))


def with_noise(
    integrals: np.ndarray, dose: float, attenuation: float, rng: np.random.Generator
) -> np.ndarray:
    """Line integrals as photons count them; a bin without a photon counts as one."""
    counts = rng.poisson(dose * np.exp(-attenuation * integrals))
    return -np.log(np.maximum(counts, 1) / dose) / attenuation
