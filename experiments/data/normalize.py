"""Normalisation: from stored bytes to channels with mean 0 and standard deviation 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import jax

    from experiments.data.dataset import Split

# Enough for the mean and deviation of a channel; a dataset on the disk is not read whole.
SAMPLED_EXAMPLES, SAMPLED_BYTES = 10_000, 256 << 20
_BYTES_AT_ONCE = 8 << 20
_LEAST_DEVIATION = 1e-3  # of a constant channel, so that nothing is divided by zero


def channel_statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of pixels scaled to [0, 1].

    Taken over all examples, or over evenly spaced ones where there are more than
    `SAMPLED_EXAMPLES` or `SAMPLED_BYTES`. `Split.channel_statistics` computes it once and keeps it.

    Args:
      split: the examples, uint8 (N, ..., C).

    Returns:
      The mean and the deviation, float32 (C,); no deviation is below 0.001.

    Example:
      >>> from experiments.data.dataset import Split
      >>> split = Split(np.full((2, 4, 4, 1), 51, np.uint8), np.zeros(2, np.int32))
      >>> mean, deviation = channel_statistics(split)
      >>> print(f"{mean[0]:g} {deviation[0]:g}")
      0.2 0.001
    """
    examples = split.examples
    size = int(np.prod(examples.shape[1:]))
    count = min(SAMPLED_EXAMPLES, max(1, SAMPLED_BYTES // size))
    chosen = np.unique(np.linspace(0, len(examples) - 1, count).round().astype(int))
    total = square = 0.0
    count = 0
    for part in np.array_split(chosen, -(-len(chosen) * size // _BYTES_AT_ONCE)):
        pixels = examples[part].reshape(-1, examples.shape[-1]).astype(np.float64) / 255
        total, square = total + pixels.sum(axis=0), square + np.square(pixels).sum(axis=0)
        count += len(pixels)
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    return mean.astype(np.float32), np.maximum(deviation, _LEAST_DEVIATION).astype(np.float32)


def normalizer(split: Split) -> Callable[[jax.Array], jax.Array]:
    """Makes a function from uint8 examples (N, ..., C) to float32 ones.

    Each channel of the split's examples gets mean 0 and standard deviation 1.

    Args:
      split: usually the training examples.

    Returns:
      The function, for arrays of JAX (also traced) or NumPy.

    Example:
      >>> from experiments.data.dataset import Split
      >>> images = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
      >>> normalizer(Split(images, np.zeros(2, np.int32)))(images).ravel().tolist()
      [-1.0, 1.0]
    """
    mean, deviation = split.channel_statistics

    def normalize(examples: jax.Array) -> jax.Array:
        return (examples.astype(np.float32) / 255 - mean) / deviation

    return normalize
