"""Bias and variance of radial basis functions fitted to noisy samples, against their width."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RIDGE = 1e-2


class Decomposition(NamedTuple):
    """What fits of many noisy sets of samples do at the places in between.

    Attributes:
      places: x, (m,).
      truth: the function at x, (m,).
      fits: of each set of samples, (sets, m).
    """

    places: np.ndarray
    truth: np.ndarray
    fits: np.ndarray

    @property
    def bias_squared(self) -> float:
        """Mean over x of (E[fit] - truth)^2."""
        return float(np.mean((self.fits.mean(axis=0) - self.truth) ** 2))

    @property
    def variance(self) -> float:
        """Mean over x of E[(fit - E[fit])^2]."""
        return float(np.mean(self.fits.var(axis=0)))

    @property
    def error(self) -> float:
        """Mean over x of E[(fit - truth)^2] = bias^2 + variance."""
        return float(np.mean((self.fits - self.truth) ** 2))


def curve(x: np.ndarray) -> np.ndarray:
    """The function that is sampled, on 0 to 10."""
    return np.sin(1.5 * x) + 0.3 * x


def decompose(
    width: float, sets: int = 100, samples: int = 60, noise: float = 0.5, seed: int = 0
) -> Decomposition:
    """Fits sets of noisy samples by least squares with Gaussians of one width.

        fit(x) = sum_k a_k exp(-(x - c_k)^2 / (2 width^2))

    with a center at each sample, and RIDGE |a|^2 added, so that the system can be solved.

    Args:
      width: of the Gaussians, in units of x. The interval is 10 long.
      sets: of samples, each with noise of its own.
      samples: of a set, evenly spaced.
      noise: standard deviation.
      seed: of the noise.

    Example:
      >>> wide, narrow = decompose(5.0), decompose(0.1)
      >>> print(f"{wide.bias_squared:.2f} {wide.variance:.2f}")
      0.44 0.01
      >>> print(f"{narrow.bias_squared:.2f} {narrow.variance:.2f}")
      0.00 0.20
    """
    centers = np.linspace(0, 10, samples)
    places = np.linspace(0, 10, 201)

    def basis(x):
        return np.exp(-((x[:, None] - centers) ** 2) / (2 * width**2))

    drawn = curve(centers) + noise * np.random.default_rng(seed).normal(size=(sets, samples))
    design = basis(centers)
    ridge = design.T @ design + RIDGE * np.eye(samples)
    amplitudes = np.linalg.solve(ridge, design.T @ drawn.T)
    return Decomposition(places, curve(places), (basis(places) @ amplitudes).T)
