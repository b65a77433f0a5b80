"""Label maps of label-to-image: what networks see of them, their colors, and mirroring."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Dataset

EDGE = ", edge"  # ends the name of a class at the border of an instance


def condition(dataset: Dataset) -> Callable[[jax.Array], jax.Array]:
    """A function from labels to what both networks see of them.

    One-hot classes, and one more channel for the edges of instances where the labels have them:
    label k + C is class k at an edge, with C classes.
    """
    edges = has_edges(dataset)
    classes = dataset.num_classes // 2 if edges else dataset.num_classes

    def channels(labels):
        labels = labels.astype(jnp.int32)
        maps = jax.nn.one_hot(labels % classes, classes)
        if not edges:
            return maps
        edge = (labels // classes).astype(maps.dtype)
        return jnp.concatenate([maps, edge[..., None]], axis=-1)

    return channels


def has_edges(dataset: Dataset) -> bool:
    """Whether the second half of a dataset's labels are classes at the edge of an instance."""
    return dataset.class_names[-1].endswith(EDGE)


def colors(dataset: Dataset) -> np.ndarray:
    """A color for each label, uint8 (labels, 3); at edges half of it is white."""
    edges = has_edges(dataset)
    classes = dataset.num_classes // 2 if edges else dataset.num_classes
    bits = np.arange(classes)
    palette = np.zeros((classes, 3), np.uint8)
    for place in range(8):  # Pascal VOC's rule: the bits of a class, the lowest ones brightest.
        for channel in range(3):
            palette[:, channel] |= (((bits >> (3 * place + channel)) & 1) << (7 - place)).astype(
                np.uint8
            )
    return np.concatenate([palette, 128 + palette // 2]) if edges else palette


def flip(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half of the images and their labels with left and right exchanged."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1))
    flipped = jnp.where(mirrored[..., None], images[:, :, ::-1], images)
    return flipped, jnp.where(mirrored, labels[:, :, ::-1], labels)
