"""Networks that score generated images: features for a Frechet distance, and labels of pixels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import digit_scenes
from experiments.data.dataset import Dataset
from experiments.models import scene_net
from experiments.tasks.conditional_gan import Segmenter

_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """What a Frechet distance is measured in. Distances in other features are other numbers.

    Attributes:
      name: for tables and figures.
      compute: images in [-1, 1], (N, H, W, 3), to features (N, d).
    """

    name: str
    compute: Callable[[jax.Array], jax.Array]


def of_scenes() -> Features:
    """The 96 features of the project's own network for `digit_scenes`; see `models.scene_net`."""
    weights = scene_net.load()

    def compute(images):
        return scene_net.SceneNet().apply(weights, scene_net.resized(images))[0]

    return Features("scene_net", compute)


def segmenter_of_scenes() -> Segmenter:
    """The same network's labels, against those of `digit_scenes` with edges."""
    weights = scene_net.load()

    def predict(images):
        logits = scene_net.SceneNet().apply(weights, images)[1]
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)

    classes = len(digit_scenes.CLASS_NAMES)
    return Segmenter(predict, lambda labels: labels.astype(jnp.int32) % classes, classes)


def of_real_images(dataset: Dataset, features: Features, count: int, used: int) -> np.ndarray:
    """Features of training images that the engine does not evaluate, to measure a floor with.

    Args:
      dataset: its training images are taken, evenly spaced.
      features: what is computed.
      count: number of images; fewer where there are not so many.
      used: the training images that are evaluated are every ceil(n / used)-th one.

    Returns:
      float32 (count, d).
    """
    train = dataset.train
    others = np.setdiff1d(np.arange(len(train)), np.arange(0, len(train), -(-len(train) // used)))
    if not len(others):
        return np.zeros((0, 1), np.float32)
    chosen = others[np.linspace(0, len(others) - 1, min(count, len(others))).astype(int)]
    compute = jax.jit(lambda images: features.compute(images.astype(jnp.float32) / 127.5 - 1))
    rows = []
    for start in range(0, len(chosen), _AT_ONCE):
        images = np.asarray(train.examples[chosen[start : start + _AT_ONCE]])
        missing = min(_AT_ONCE, len(chosen)) - len(images)
        padded = np.concatenate([images, np.repeat(images[:1], missing, axis=0)])
        rows.append(np.asarray(compute(padded))[: len(images)])
    return np.concatenate(rows)
