"""Scores of sets: the Frechet distance of two sets of features, and mean IoU of a segmentation.

Both are a sum over examples and a formula at the end. The sums (`moments`, `confusion_matrix`) work
inside `jax.jit` and are added over batches; the formulas (`frechet_distance`,
`frechet_distance_of_moments`, `mean_iou`, ...) run on the host, in float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Moments(NamedTuple):
    """Sums over features x of shape (d,), from which mean and covariance follow.

    Moments of two batches are added leaf by leaf: ``jax.tree.map(operator.add, first, second)``.

    Attributes:
      count: n, the number of examples, ().
      total: sum of x, (d,).
      outer: sum of x x', (d, d).
    """

    count: Any
    total: Any
    outer: Any


def moments(features: jax.Array, mask: jax.Array | None = None) -> Moments:
    """Moments of a batch of features, in float32 or the wider dtype of the features.

    The covariance is outer / n - mean mean', so digits are lost where the mean is much larger than
    the deviation: subtract a constant vector from all features first (the Frechet distance does
    not change if both sets are shifted by the same vector), or sum in float64.

    Args:
      features: (N, d).
      mask: (N,), 1 or True for the examples that count. Default: all of them.

    Returns:
      Moments. It may be called inside `jax.jit`.

    Example:
      >>> moments(jnp.array([[1.0, 2.0], [3.0, 4.0]]), mask=jnp.array([True, False])).outer
      Array([[1., 2.],
             [2., 4.]], dtype=float32)
    """
    x = jnp.asarray(features)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    weight = jnp.ones(len(x), x.dtype) if mask is None else jnp.asarray(mask, x.dtype)
    x = jnp.where(weight[:, None] > 0, x, 0)  # NaN in a padded example must not reach the sums.
    weighted = x * weight[:, None]
    outer = jnp.matmul(weighted.T, x, precision="highest")
    return Moments(jnp.sum(weight), jnp.sum(weighted, axis=0), outer)


def frechet_distance(x: Any, y: Any) -> float:
    """Squared Frechet distance between the normal distributions fitted to two sets of features.

        d^2 = |m1 - m2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))

    with means m and covariances S (divided by N - 1). With A the centred features divided by
    sqrt(N - 1), S = A'A, and Tr (S1 S2)^(1/2) is the sum of the singular values of A1 A2'. No
    matrix square root is taken, so the result is exact where N < d and S is singular.

    This number is called FID only if the features are those of the Inception network of 2015.
    Its expectation falls with N: compare sets of equal size.

    Args:
      x: features (N, d), N >= 2.
      y: features (M, d), M >= 2.

    Returns:
      The squared distance, not negative.

    Raises:
      ValueError: a shape is not accepted, or a feature is not finite.

    Source:
      Dowson and Landau, "The Frechet distance between multivariate normal distributions" (1982);
      Heusel et al., "GANs trained by a two time-scale update rule" (2017), equation 6.

    Example:
      >>> x = np.array([[0.0], [2.0]])  # Mean 1, variance 2.
      >>> y = np.array([[3.0], [7.0]])  # Mean 5, variance 8.
      >>> round(frechet_distance(x, y), 9)  # (5 - 1)^2 + (sqrt(8) - sqrt(2))^2
      18.0
    """
    x, y = _features("x", x), _features("y", y)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"y: got {y.shape[1]} features; accepted: {x.shape[1]}, as x has")
    means, factors = zip(*(_factor_of_samples(samples) for samples in (x, y)), strict=True)
    return _distance(*means, *factors)


def frechet_distance_of_moments(x: Moments, y: Moments) -> float:
    """`frechet_distance` of two sets of which only the moments are stored.

    A covariance of rank below d has eigenvalues that are zero but for rounding; their roots would
    not be small. At most N - 1 eigenvalues are kept, and those below d eps max(eigenvalue) are
    set to zero.

    Args:
      x, y: `Moments`, or tuples (n, sum of x (d,), sum of x x' (d, d)); n >= 2.

    Returns:
      The squared distance, not negative.

    Raises:
      ValueError: a shape or a count is not accepted, or a value is not finite.

    Example:
      >>> x = (2, np.array([2.0]), np.array([[4.0]]))  # 0 and 2.
      >>> y = (2, np.array([10.0]), np.array([[58.0]]))  # 3 and 7.
      >>> round(frechet_distance_of_moments(x, y), 9)
      18.0
    """
    (mean_x, factor_x), (mean_y, factor_y) = _factor_of_moments("x", x), _factor_of_moments("y", y)
    if mean_x.shape != mean_y.shape:
        raise ValueError(f"y: got {len(mean_y)} features; accepted: {len(mean_x)}, as x has")
    return _distance(mean_x, mean_y, factor_x, factor_y)


def confusion_matrix(
    labels: jax.Array, predictions: jax.Array, num_classes: int, ignore: int = 255
) -> jax.Array:
    """Counts of pixels (or examples) by their true and their predicted class.

    Args:
      labels: integers of any shape, 0 to num_classes - 1 or `ignore`.
      predictions: integers of the same shape, 0 to num_classes - 1.
      num_classes: C.
      ignore: the label of what is not counted, whatever its prediction is. A mask of padded
        examples is applied by giving their labels this value.

    Returns:
      int32 (C, C): entry (i, j) counts true class i predicted as j. Exact below 2^31 pixels: add
      more than that on the host, in int64. It may be called inside `jax.jit`.

    Raises:
      ValueError: the shapes differ, or a value outside the accepted ones is known when this is
        called. Inside `jax.jit` values are not known; a pixel with such a value is not counted.

    Example:
      >>> labels, predictions = jnp.array([0, 0, 1, 255]), jnp.array([0, 1, 1, 0])
      >>> confusion_matrix(labels, predictions, num_classes=2)
      Array([[1, 1],
             [0, 1]], dtype=int32)
    """
    if jnp.shape(labels) != jnp.shape(predictions):
        raise ValueError(
            f"predictions: got shape {jnp.shape(predictions)}; accepted: {jnp.shape(labels)}, as "
            "labels have"
        )
    for name, values in (("labels", labels), ("predictions", predictions)):
        if not jnp.issubdtype(jnp.asarray(values).dtype, jnp.integer):
            raise ValueError(f"{name}: got {jnp.asarray(values).dtype}; accepted: integers")
    labels, predictions = (jnp.ravel(jnp.asarray(z)) for z in (labels, predictions))
    # uint8 times the number of classes would wrap around.
    labels, predictions = labels.astype(jnp.int32), predictions.astype(jnp.int32)
    counted = labels != ignore
    fits = [(0 <= z) & (z < num_classes) for z in (labels, predictions)]
    for name, values, good in zip(
        ("labels", "predictions"), (labels, predictions), fits, strict=True
    ):
        wrong = counted & ~good
        if not isinstance(wrong, jax.core.Tracer) and wrong.any():
            alternative = f" or {ignore}" if name == "labels" else ""
            raise ValueError(
                f"{name}: got {int(values[wrong][0])}; accepted: 0 to {num_classes - 1}"
                f"{alternative}"
            )
    # What is not counted goes to one more bin, which is cut off.
    cell = jnp.where(
        counted & fits[0] & fits[1], labels * num_classes + predictions, num_classes**2
    )
    return jnp.bincount(cell, length=num_classes**2 + 1)[:-1].reshape(num_classes, num_classes)


def iou_per_class(confusion: Any) -> np.ndarray:
    """Intersection over union of each class, C_ii / (sum_j C_ij + sum_j C_ji - C_ii).

    Args:
      confusion: (C, C) counts, rows are the truth.

    Returns:
      float64 (C,); NaN for a class that occurs neither in the truth nor among the predictions.

    Raises:
      ValueError: the matrix is not square.

    Source:
      Everingham et al., "The Pascal Visual Object Classes challenge" (2015), section 4.1.4.

    Example:
      >>> iou_per_class([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
      array([0.5       , 0.57142857,        nan])
    """
    confusion = np.asarray(confusion, np.float64)
    if confusion.ndim != 2 or confusion.shape[0] != confusion.shape[1]:
        raise ValueError(f"confusion: got shape {confusion.shape}; accepted: (C, C)")
    intersection = np.diagonal(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return np.divide(intersection, union, out=np.full(len(union), np.nan), where=union > 0)


def mean_iou(confusion: Any) -> float:
    """The mean of `iou_per_class` over the classes that occur.

    A class that occurs neither in the truth nor among the predictions has no IoU and is left out
    of the mean. A class that is predicted and never true counts as 0.

    Args:
      confusion: (C, C) counts, rows are the truth, summed over the whole set.

    Returns:
      The mean in float64; NaN if nothing was counted.

    Raises:
      ValueError: the matrix is not square.

    Example:
      >>> round(mean_iou([[3, 1, 0], [2, 4, 0], [0, 0, 0]]), 6)  # (1/2 + 4/7) / 2
      0.535714
    """
    scores = iou_per_class(confusion)
    occurs = ~np.isnan(scores)
    return float(scores[occurs].mean()) if occurs.any() else float("nan")


def pixel_accuracy(confusion: Any) -> float:
    """The share of counted pixels whose class is predicted, trace / sum; NaN if none is counted.

    Example:
      >>> pixel_accuracy([[3, 1], [2, 4]])
      0.7
    """
    confusion = np.asarray(confusion, np.float64)
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total else float("nan")


def _features(name: str, features: Any) -> np.ndarray:
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 2 or not features.shape[1]:
        raise ValueError(f"{name}: got shape {features.shape}; accepted: (N, d), N >= 2, d >= 1")
    if not np.isfinite(features).all():
        raise ValueError(f"{name}: got NaN or infinity; accepted: finite features")
    return features


def _factor_of_samples(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean (d,), and F (rank, d) with F'F the covariance."""
    mean = samples.mean(axis=0)
    centred = (samples - mean) / np.sqrt(len(samples) - 1)
    # A = Q R gives A'A = R'R: the singular values of A1 A2' are those of R1 R2'.
    return mean, np.linalg.qr(centred, mode="r") if len(samples) > len(mean) else centred


def _factor_of_moments(name: str, values: Moments) -> tuple[np.ndarray, np.ndarray]:
    """The same from sums, by the eigenvectors of the covariance."""
    count, total, outer = (np.asarray(value, np.float64) for value in values)
    if count.ndim or total.ndim != 1 or not len(total) or outer.shape != 2 * total.shape:
        raise ValueError(
            f"{name}: got shapes {count.shape}, {total.shape}, {outer.shape}; accepted: (), (d,), "
            "(d, d)"
        )
    if not (np.isfinite(count) and np.isfinite(total).all() and np.isfinite(outer).all()):
        raise ValueError(f"{name}: got NaN or infinity; accepted: finite sums")
    if count < 2:
        raise ValueError(f"{name}: got {count:g} examples; accepted: 2 or more")
    mean = total / count
    covariance = (outer - count * np.outer(mean, mean)) / (count - 1)
    eigenvalues, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    rank = int(min(count - 1, len(mean)))
    eigenvalues, vectors = eigenvalues[-rank:], vectors[:, -rank:]
    # The rounding of the sums is relative to their size, not to that of the covariance.
    largest = np.abs(np.diagonal(outer)).max() / (count - 1)
    zero = eigenvalues <= len(mean) * np.finfo(np.float64).eps * largest
    return mean, (vectors * np.sqrt(np.where(zero, 0, eigenvalues))).T


def _distance(
    mean_x: np.ndarray, mean_y: np.ndarray, factor_x: np.ndarray, factor_y: np.ndarray
) -> float:
    cross = np.linalg.svd(factor_x @ factor_y.T, compute_uv=False).sum()
    traces = np.sum(factor_x**2) + np.sum(factor_y**2)
    return max(float(np.sum((mean_x - mean_y) ** 2) + traces - 2 * cross), 0.0)
