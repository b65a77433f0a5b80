"""Networks that score generated images: features for a Frechet distance, and labels of pixels."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data import digit_scenes
from experiments.data.dataset import Dataset
from experiments.data.label_images import CITYSCAPES_IDS, CITYSCAPES_TRAINED
from experiments.models import inception, scene_net
from experiments.models.spade import nearest
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


def of_inception(path: pathlib.Path) -> Features:
    """The 2048 features that FID is defined by, with the weights of a file.

    Raises:
      UserError: the file cannot be read, or holds other weights.
    """
    weights = inception.load(path)
    return Features("inception", lambda images: inception.features(weights, images))


def segmenter_of_task(task: Any, variables: Any, size: tuple[int, int], truth: np.ndarray):
    """A trained network for segmentation as a `Segmenter`.

    Args:
      task: a `Supervised` task whose model maps images to logits (N, H, W, classes).
      variables: of its model.
      size: height and width that it was trained on; images are resized to it, and its labels back.
      truth: uint8, what it should find for each label of the dataset; 255 does not count.
    """

    def predict(images):
        shape = (len(images), *size, images.shape[-1])
        if images.shape != shape:
            pixels = jax.image.resize((images + 1) * 127.5, shape, "linear")
        else:
            pixels = (images + 1) * 127.5
        logits = task.model.apply(variables, task.normalize(pixels), train=False)
        found = jnp.argmax(logits, axis=-1).astype(jnp.int32)[..., None]
        return nearest(found, images.shape[1:3])[..., 0]

    classes = int(truth[truth != 255].max()) + 1
    return Segmenter(predict, lambda labels: jnp.asarray(truth)[labels.astype(jnp.int32)], classes)


def truth_of(dataset: Dataset) -> np.ndarray:
    """What a network for segmentation should find for each label with edges, uint8 (labels,).

    The digits of `digit_scenes`; the 19 training ids of Cityscapes, and 255 for its other ids.
    """
    half = dataset.num_classes // 2
    if half == len(CITYSCAPES_IDS):
        found = np.full(half, 255, np.uint8)
        found[list(CITYSCAPES_TRAINED)] = np.arange(len(CITYSCAPES_TRAINED))
    else:
        found = np.arange(half, dtype=np.uint8)
    return np.concatenate([found, found])


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
