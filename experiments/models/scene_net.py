"""A small network that knows `digit_scenes`: its features, and its labels of pixels.

Its weights are in scene_net.npz, beside this file, so that distances in its features are the same
numbers everywhere. `experiments.tasks.scene_net.train` made them.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from experiments.models.spade import nearest

SIDE = 64  # pixels; the height and width of the scenes that it was trained on
CLASSES = 11
FEATURES = 96
WEIGHTS = pathlib.Path(__file__).with_name("scene_net.npz")


class SceneNet(nn.Module):
    """Five convolutions down to an eighth of the size, and two back up, with skips.

    Example:
      >>> features, logits = SceneNet().apply(load(), jnp.zeros((2, 64, 64, 3)))
      >>> features.shape, logits.shape
      ((2, 96), (2, 64, 64, 11))
    """

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Features (N, 96) and logits (N, H, W, 11) of images in [-1, 1], (N, H, W, 3)."""

        def convolution(x, channels, stride=1):
            x = nn.Conv(channels, (3, 3), strides=stride, use_bias=False)(x)
            return nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))

        full = convolution(images, 16)
        half = convolution(full, 24, stride=2)
        quarter = convolution(half, 32, stride=2)
        x = convolution(convolution(quarter, 64, stride=2), 64)
        features = jnp.concatenate([x.mean(axis=(1, 2)), quarter.mean(axis=(1, 2))], axis=-1)
        for skip in (quarter, half):
            x = convolution(_joined(x, skip), 2 * skip.shape[-1])
        return features, nn.Conv(CLASSES, (1, 1))(_joined(x, full))


def _joined(x: jax.Array, skip: jax.Array) -> jax.Array:
    return jnp.concatenate([nearest(x, skip.shape[1:3]), skip], axis=-1)


@functools.cache
def load() -> dict[str, Any]:
    """The weights that belong to the project, as `SceneNet.apply` takes them."""
    with np.load(WEIGHTS, allow_pickle=False) as file:
        flat = {tuple(name.split("/")): np.float32(file[name]) for name in file.files}
    return flax.traverse_util.unflatten_dict(flat)


def save(variables: Any, path: pathlib.Path = WEIGHTS) -> None:
    """Writes weights as `load` reads them, in half precision."""
    flat = flax.traverse_util.flatten_dict(jax.device_get(variables))
    np.savez_compressed(path, **{"/".join(k): np.float16(v) for k, v in flat.items()})


def resized(images: jax.Array) -> jax.Array:
    """Images (N, H, W, C) at the size that the network knows; those of that size as they are."""
    if images.shape[1:3] == (SIDE, SIDE):
        return images
    return jax.image.resize(images, (len(images), SIDE, SIDE, images.shape[-1]), "linear")
