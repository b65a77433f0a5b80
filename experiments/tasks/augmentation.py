"""Augmentation of images inside a training step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from experiments.tasks.supervised import Augment


def random_crop_and_flip(pad: int = 4, flip: bool = True) -> Augment:
    """Augmentation of He et al.: pad with black, crop at random, flip half of the images.

    Args:
      pad: pixels added on each side.
      flip: whether to flip left and right; not for digits.

    Returns:
      (key, uint8 images (N, H, W, C), labels) -> uint8 images of the same shape, the same labels.
    """

    def augment(key, images, labels):
        crop_key, flip_key = jax.random.split(key)
        count, *size = images.shape
        padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        corners = jax.random.randint(crop_key, (count, 2), 0, 2 * pad + 1)

        def crop(image, corner):
            return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), size)

        cropped = jax.vmap(crop)(padded, corners)
        if not flip:
            return cropped, labels
        mirrored = jax.random.bernoulli(flip_key, 0.5, (count, 1, 1, 1))
        return jnp.where(mirrored, cropped[:, :, ::-1], cropped), labels

    return augment
