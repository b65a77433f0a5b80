"""From stored bytes to what a network sees: each channel with mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Split

# Enough for the mean and deviation of a channel; a set on the disk is not read whole.
SAMPLED_EXAMPLES, SAMPLED_BYTES = 10_000, 256 << 20
_BYTES_AT_ONCE = 8 << 20


def channel_statistics(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, (C,) float32, of pixels scaled to [0, 1].

    Taken over all examples, or over evenly spaced ones where there are more than
    `SAMPLED_EXAMPLES` of them or `SAMPLED_BYTES`.
    """
    size = int(np.prod(split.examples.shape[1:]))
    count = min(SAMPLED_EXAMPLES, max(1, SAMPLED_BYTES // size))
    chosen = np.unique(np.linspace(0, len(split) - 1, count).round().astype(int))
    total = square = 0.0
    count = 0
    for part in np.array_split(chosen, -(-len(chosen) * size // _BYTES_AT_ONCE)):
        pixels = split.examples[part].reshape(-1, split.examples.shape[-1]).astype(np.float64) / 255
        total, square = total + pixels.sum(axis=0), square + np.square(pixels).sum(axis=0)
        count += len(pixels)
    mean = total / count
    deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
    return mean.astype(np.float32), np.maximum(deviation, 1e-3).astype(np.float32)


def normalizer(split: Split) -> Callable[[jax.Array], jax.Array]:
    """A function from uint8 examples to float32, each channel with mean 0 and deviation 1."""
    mean, deviation = channel_statistics(split)

    def normalize(examples: jax.Array) -> jax.Array:
        return (examples.astype(jnp.float32) / 255 - mean) / deviation

    return normalize
