"""Parallel-beam projection of an image: the system matrix A of S = A V.

A ray of the view at angle theta is the line

    x cos(theta) - y sin(theta) = t

with x the column and y the row of a pixel, both counted from the centre, and t the place of the
detector bin; this is the geometry of `skimage.transform.radon` and `iradon`. Lengths are in pixels.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse


def view_angles(views: int) -> np.ndarray:
    """Angles in radians, evenly spaced over half a turn, (views,).

    Example:
      >>> np.degrees(view_angles(4)).round(6).tolist()
      [0.0, 45.0, 90.0, 135.0]
    """
    return np.arange(views) * (np.pi / views)


def rays(
    size: int, angle: float, center: float | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels that the rays of one view cross, with their weights.

    A ray is followed row by row, or column by column if that is the direction in which it moves
    faster. In each row it is at one place between two pixels, which share the length of the ray
    within the row, 1 / max(|cos|, |sin|), by linear interpolation.

    Args:
      size: n, of an n x n image and of a detector with n bins.
      angle: theta, in radians.
      center: row, column and bin of the centre of rotation. Default: n // 2, as in scikit-image.

    Returns:
      For each nonzero entry: its detector bin, its pixel row * n + column, its weight in pixels.

    Source:
      Joseph, "An improved algorithm for reprojecting rays through pixel images" (1982).

    Example:
      >>> bins, pixels, weights = rays(3, 0.0)  # at angle 0 each ray is one column
      >>> pixels[bins == 1].tolist(), weights[bins == 1].tolist()
      ([1, 4, 7], [1.0, 1.0, 1.0])
    """
    middle = size // 2 if center is None else center
    cos, sin = np.cos(angle), np.sin(angle)
    by_rows = abs(cos) >= abs(sin)
    t = (np.arange(size) - middle)[:, None]
    along = (np.arange(size) - middle)[None, :]  # the row, or the column, that the ray is in
    across = (t + along * sin) / cos if by_rows else (along * cos - t) / sin
    place = across + middle
    # Rounding must not move a ray that lies on a pixel to its neighbour.
    place = np.where(np.abs(place - np.rint(place)) < 1e-9, np.rint(place), place)
    lower = np.floor(place).astype(np.int64)
    neighbours = np.stack([lower, lower + 1], axis=-1)
    weights = np.stack([lower + 1 - place, place - lower], axis=-1) / max(abs(cos), abs(sin))
    inside = (neighbours >= 0) & (neighbours < size) & (weights > 0)
    steps = np.broadcast_to(np.arange(size)[None, :, None], neighbours.shape)
    pixels = steps * size + neighbours if by_rows else neighbours * size + steps
    bins = np.broadcast_to(np.arange(size)[:, None, None], neighbours.shape)
    return bins[inside], pixels[inside], weights[inside]


def system_matrix(size: int, views: int, dtype=jnp.float32) -> sparse.BCOO:
    """A: from an image to its sinogram, sparse; its adjoint is its transpose, ``y @ A``.

    Args:
      size: n, of an n x n image and of a detector with n bins.
      views: how many, evenly spaced over half a turn.
      dtype: of the weights.

    Returns:
      (views n, n n), for flat images and flat sinograms (views, n).

    Example:
      >>> A = system_matrix(3, views=2)
      >>> (A @ jnp.arange(9.0)).tolist()  # the sums of columns, then of rows from below
      [9.0, 12.0, 15.0, 21.0, 12.0, 3.0]
    """
    rows, columns, weights = [], [], []
    for view, angle in enumerate(view_angles(views)):
        bins, pixels, values = rays(size, angle)
        rows.append(view * size + bins)
        columns.append(pixels)
        weights.append(values)
    row, column, weight = (np.concatenate(parts) for parts in (rows, columns, weights))
    order = np.lexsort((column, row))  # XLA adds faster where rows are sorted.
    indices = np.stack([row[order], column[order]], axis=1).astype(np.int32)
    return sparse.BCOO(
        (jnp.asarray(weight[order], dtype), jnp.asarray(indices)),
        shape=(views * size, size * size),
        indices_sorted=True,
        unique_indices=True,
    )


def project_finely(image: np.ndarray, views: int, factor: int) -> np.ndarray:
    """The sinogram that a scanner with coarse bins measures of a finer image.

    Every bin is the mean of `factor` finer ones. What is reconstructed on the coarse grid then does
    not come from the same matrix that it is reconstructed with.

    Args:
      image: (n factor, n factor).
      views: how many.
      factor: fine pixels for each side of a coarse one.

    Returns:
      (views, n), in lengths of coarse pixels, about the centre n // 2 of the coarse grid.

    Example:
      >>> project_finely(np.ones((4, 4)), views=1, factor=2).tolist()
      [[2.0, 2.0]]
    """
    fine = len(image)
    size = fine // factor
    center = factor * (size // 2) + (factor - 1) / 2  # of the middle coarse pixel, in fine ones
    sinogram = np.empty((views, size))
    for view, angle in enumerate(view_angles(views)):
        bins, pixels, weights = rays(fine, angle, center)
        values = np.bincount(bins, weights * image.ravel()[pixels], minlength=fine)
        sinogram[view] = values.reshape(size, factor).mean(axis=1) / factor
    return sinogram
