"""Augmentation of images inside a training step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

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


def cutout(size: int, fill: np.ndarray) -> Augment:
    """Covers a square of each image, its center anywhere in the image.

    The part of the square beyond the border covers nothing, so that some images are almost whole.

    Args:
      size: height and width of the square, in pixels.
      fill: what the square is covered with, uint8 (C,), such as the mean color.

    Returns:
      (key, uint8 images (N, H, W, C), labels) -> images of the same shape, the same labels.

    Source:
      DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout"
      (2017).

    Example:
      >>> images = jnp.full((1, 4, 4, 1), 9, jnp.uint8)
      >>> covered, _ = cutout(8, np.zeros(1, np.uint8))(jax.random.key(0), images, None)
      >>> int(covered.sum())  # a square of twice the size covers all of it
      0
    """

    def augment(key, images, labels):
        count, height, width, _ = images.shape
        corner = jax.random.randint(key, (count, 2), 0, jnp.array([height, width])) - size // 2
        y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
        top, left = corner[:, 0, None, None], corner[:, 1, None, None]
        covered = (y >= top) & (y < top + size) & (x >= left) & (x < left + size)
        return jnp.where(covered[..., None], jnp.asarray(fill, images.dtype), images), labels

    return augment


def mixup(alpha: float, num_classes: int) -> Augment:
    """Mixes each image of a batch with another one, and their labels alike.

        x = s x_i + (1 - s) x_j,   y = s y_i + (1 - s) y_j,   s ~ Beta(alpha, alpha)

    with one s for the whole batch, and j a permutation of the batch, as in the authors' code. The
    loss is then the cross-entropy with labels that are probabilities.

    Args:
      alpha: positive; near 0 most batches stay as they are, at 1 every s is as likely.
      num_classes: of the labels.

    Returns:
      (key, images (N, H, W, C), labels, integers (N,)) -> float32 images on the scale of the bytes,
      labels (N, num_classes) that sum to 1.

    Source:
      Zhang et al., "mixup: Beyond empirical risk minimization" (2018).

    Example:
      >>> images, labels = jnp.zeros((2, 4, 4, 1), jnp.uint8), jnp.array([0, 1])
      >>> _, mixed = mixup(1.0, num_classes=2)(jax.random.key(0), images, labels)
      >>> mixed.sum(axis=1).tolist()
      [1.0, 1.0]
    """

    def augment(key, images, labels):
        share_key, order_key = jax.random.split(key)
        share = jax.random.beta(share_key, alpha, alpha)
        order = jax.random.permutation(order_key, len(images))
        examples = images.astype(jnp.float32)
        targets = jax.nn.one_hot(labels, num_classes)

        def mixed(x):
            return share * x + (1 - share) * x[order]

        return mixed(examples), mixed(targets)

    return augment


def one_after_another(first: Augment, *others: Augment) -> Augment:
    """Several augmentations as one; `first` gets the step's key itself, the others get new ones."""
    if not others:
        return first

    def augment(key, examples, labels):
        examples, labels = first(key, examples, labels)
        for number, other in enumerate(others):
            examples, labels = other(jax.random.fold_in(key, number), examples, labels)
        return examples, labels

    return augment
