"""Segmentation: a class for every pixel, mean IoU from the summed confusion matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.dataset import Dataset
from experiments.data.normalize import normalizer
from experiments.tasks import scores
from experiments.tasks.supervised import Augment, Supervised
from experiments.training.task import Headline

LOSSES = ("cross_entropy", "lovasz", "both")
# Counts of pixels are added in two parts, this many to one and the rest. The engine adds the steps
# between two evaluations in 32 bits, and an epoch of Pascal VOC has more than 2^31 pixels.
_PART = 1 << 10


def segmentation(
    model: nn.Module,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    loss: str | Callable[[jax.Array, jax.Array], jax.Array] = "cross_entropy",
    **options: Any,
) -> Supervised:
    """A classifier of pixels, headline mean intersection over union.

    Pixels with the dataset's `ignore_label` count neither in the loss nor in a metric. The metrics
    are "mean_iou" (of Pascal VOC: from the confusion matrix summed over the set), "pixel_accuracy",
    "image_iou" (see `image_iou`) and "iou_CLASS" of each class that occurs.

    Args:
      model: images (N, H, W, C) to logits (N, H, W, num_classes).
      dataset: images with images of labels (N, H, W).
      optimizer: see `Supervised`.
      learning_rate: see `Supervised`.
      loss: one of `LOSSES` ("both": the sum), or a function of (logits, labels) to a loss for each
        example.
      **options: further arguments of `Supervised`, such as `augment`.
    """
    classes, ignore = dataset.num_classes, dataset.ignore_label

    def counted(labels):
        return jnp.full(labels.shape, True) if ignore is None else labels != ignore

    def loss_of(logits, labels):
        valid = counted(labels)
        labels = jnp.where(valid, labels, 0).astype(jnp.int32)
        chosen = [cross_entropy] * (loss != "lovasz") + [lovasz_softmax] * (loss != "cross_entropy")
        return sum(function(logits, labels, valid) for function in chosen)

    def statistics(logits, labels, mask):
        valid = counted(labels) & mask[:, None, None]
        chosen = jnp.where(valid, labels.astype(jnp.int32), -1)
        predicted = jnp.argmax(logits, axis=-1)
        matrices = jax.vmap(
            lambda truth, guess: scores.confusion_matrix(truth, guess, classes, ignore=-1)
        )(chosen, predicted)
        of_image, has_object = image_iou(matrices)
        confusion = jnp.sum(matrices, axis=0)
        return {
            "confusion_parts": confusion // _PART,
            "confusion_rest": confusion % _PART,
            "image_iou": jnp.sum(of_image),
            "images": jnp.sum(has_object),
        }

    def finalize(sums):
        matrix = _PART * sums["confusion_parts"] + sums["confusion_rest"]
        found = {
            "mean_iou": scores.mean_iou(matrix),
            "pixel_accuracy": float(np.trace(matrix) / max(1.0, matrix.sum())),
            "image_iou": float(sums["image_iou"] / max(1.0, sums["images"])),
        }
        each = zip(dataset.class_names, scores.iou_per_class(matrix), strict=True)
        # A class that does not occur has no IoU, and NaN would end the training.
        return found | {f"iou_{name}": float(iou) for name, iou in each if not np.isnan(iou)}

    return Supervised(
        **{
            "model": model,
            "example_shape": dataset.example_shape,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "loss": loss if callable(loss) else loss_of,
            "statistics": statistics,
            "finalize": finalize,
            "headline": Headline("mean_iou", higher_is_better=True, percent=True),
            "normalize": normalizer(dataset.train),
            **options,
        }
    )


def image_iou(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The mean IoU of each image over the classes present in it, the background left out.

    This is what github.com/nyoki-mtl/pytorch-segmentation reports the mean of; there, void pixels
    count as background. It is not the mean IoU of Pascal VOC: a small object weighs as much as a
    large one.

    Args:
      matrices: (N, C, C), the confusion matrix of each image; class 0 is the background.

    Returns:
      The mean IoU (N,), 0 for an image without an object, and whether it has one (N,).

    Example:
      >>> matrix = jnp.array([[[9, 1, 0], [2, 3, 0], [0, 0, 0]]])
      >>> [x.tolist() for x in image_iou(matrix)]  # 3 / (2 + 3 + 1)
      [[0.5], [True]]
    """
    truth, predicted = jnp.sum(matrices, axis=2), jnp.sum(matrices, axis=1)
    hits = jnp.diagonal(matrices, axis1=1, axis2=2)
    present = (truth > 0).at[:, 0].set(False)
    iou = jnp.where(present, hits / jnp.maximum(1, truth + predicted - hits), 0.0)
    count = jnp.sum(present, axis=1)
    return jnp.sum(iou, axis=1) / jnp.maximum(1, count), count > 0


def cross_entropy(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean cross-entropy of each image over its valid pixels, 0 if it has none.

    Args:
      logits: (N, H, W, C).
      labels: integers (N, H, W) from 0 to C - 1.
      valid: bool (N, H, W), the pixels that count.

    Returns:
      (N,).
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    total = jnp.sum(jnp.where(valid, losses, 0.0), axis=(1, 2))
    return total / jnp.maximum(1, jnp.sum(valid, axis=(1, 2)))


def lovasz_softmax(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> jax.Array:
    """The Lovasz-softmax loss of each image, the mean over the classes present in it.

    For a class c let m be the errors of the valid pixels, 1 - p where the truth is c and p
    elsewhere, with p the softmax probability of c. The Jaccard loss of a set of wrong pixels M is
    |M| / |{truth is c} union M|, and the loss is its Lovasz extension at m: with the errors in
    falling order, sum_i m_i (J({1..i}) - J({1..i-1})). Learning from scratch with it alone goes
    badly; add the cross-entropy.

    Args:
      logits: (N, H, W, C).
      labels: integers (N, H, W) from 0 to C - 1.
      valid: bool (N, H, W), the pixels that count.

    Returns:
      (N,); 0 for an image without a valid pixel.

    Source:
      Berman, Triki and Blaschko, "The Lovasz-softmax loss" (CVPR 2018), equations 8, 9 and 11.

    Example:
      >>> logits = jnp.array([[[[0.0, 0.0], [0.0, 0.0]]]])  # Every probability is 1/2.
      >>> labels, valid = jnp.array([[[0, 1]]]), jnp.ones((1, 1, 2), bool)
      >>> lovasz_softmax(logits, labels, valid).tolist()
      [0.5]
    """
    return jax.vmap(_lovasz_of_image)(logits, labels, valid)


def _lovasz_of_image(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> jax.Array:
    classes = logits.shape[-1]
    probabilities = jax.nn.softmax(logits.reshape(-1, classes)).T
    valid = valid.ravel()
    truth = (labels.ravel() == jnp.arange(classes)[:, None]) & valid
    errors = jnp.where(valid, jnp.abs(truth - probabilities), 0.0)
    # Void pixels come last, after errors of 0: they change no set that counts.
    order = jnp.argsort(jnp.where(valid, -errors, 1.0), axis=1)
    errors = jnp.take_along_axis(errors, order, axis=1)
    truth = jnp.take_along_axis(truth, order, axis=1)
    total = jnp.sum(truth, axis=1, keepdims=True)
    union = total + jnp.cumsum(~truth, axis=1)
    jaccard = 1.0 - (total - jnp.cumsum(truth, axis=1)) / jnp.maximum(1, union)
    growth = jnp.diff(jaccard, axis=1, prepend=0.0)
    present = total[:, 0] > 0
    losses = jnp.sum(errors * growth, axis=1)
    return jnp.sum(jnp.where(present, losses, 0.0)) / jnp.maximum(1, jnp.sum(present))


def scale_crop_and_flip(
    jitter: float, flip: bool, ignore: int, color: tuple[float, ...]
) -> Augment:
    """Scales, moves and flips pictures together with their labels.

    A picture is scaled by a factor drawn from 1 - jitter to 1 + jitter, a larger one is cropped to
    its former size at a random place, and a smaller one is put at a random place on a canvas.
    Pictures are scaled bilinearly, labels take the nearest pixel.

    Args:
      jitter: in [0, 1).
      flip: whether half of the pictures are mirrored, left and right.
      ignore: the label of the canvas.
      color: of the canvas, 0 to 255, one number for each channel.

    Returns:
      (key, uint8 images (N, H, W, C), labels (N, H, W)) to both, changed.
    """

    def augment(key, images, labels):
        scale_key, place_key, flip_key = jax.random.split(key, 3)
        count, *size = images.shape[:3]
        size = jnp.array(size, jnp.float32)
        if jitter:
            scale = jax.random.uniform(scale_key, (count, 1), minval=1 - jitter, maxval=1 + jitter)
            place = jax.random.uniform(place_key, (count, 2)) * (size - scale * size)
            images = jax.vmap(_scaled_image, (0, 0, 0, None))(
                images, scale[:, 0], place, jnp.array(color, jnp.float32)
            )
            labels = jax.vmap(_scaled_labels, (0, 0, 0, None))(labels, scale[:, 0], place, ignore)
        if flip:
            mirrored = jax.random.bernoulli(flip_key, 0.5, (count,))
            images = jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)
            labels = jnp.where(mirrored[:, None, None], labels[:, :, ::-1], labels)
        return images, labels

    return augment


def _scaled_image(image, scale, place, color):
    # What lies outside of the picture becomes zero.
    scaled = jax.image.scale_and_translate(
        image.astype(jnp.float32) - color, image.shape, (0, 1), jnp.stack([scale, scale]), place,
        "linear",
    )  # fmt: skip
    return jnp.clip(jnp.round(scaled + color), 0, 255).astype(jnp.uint8)


def _scaled_labels(labels, scale, place, ignore):
    # Pixel i of the result shows the place (i + 1/2 - place) / scale of the labels.
    indices = [
        jnp.floor((jnp.arange(size) + 0.5 - start) / scale).astype(jnp.int32)
        for size, start in zip(labels.shape, place, strict=True)
    ]
    inside = [(0 <= i) & (i < size) for i, size in zip(indices, labels.shape, strict=True)]
    rows, columns = (
        jnp.clip(i, 0, size - 1) for i, size in zip(indices, labels.shape, strict=True)
    )
    found = labels[rows[:, None], columns[None, :]]
    canvas = jnp.asarray(ignore, labels.dtype)
    return jnp.where(inside[0][:, None] & inside[1][None, :], found, canvas)
