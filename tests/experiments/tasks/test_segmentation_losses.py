"""The Lovasz-softmax loss against its definition, and pictures moved with their labels."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.tasks.segmentation import (
    cross_entropy,
    image_iou,
    lovasz_softmax,
    scale_crop_and_flip,
)


def jaccard_loss(wrong, truth):
    """1 - intersection / union of the truth and what is predicted when these pixels are wrong."""
    truth, wrong = set(truth), set(wrong)
    predicted = truth ^ wrong
    return 1 - len(truth & predicted) / len(truth | predicted)


def extension(errors, truth):
    """The Lovasz extension of a submodular function: the largest of all orders of the pixels."""

    def of_order(order):
        sets = [order[:i] for i in range(len(order) + 1)]
        values = [jaccard_loss(s, truth) for s in sets]
        return sum(errors[p] * (values[i + 1] - values[i]) for i, p in enumerate(order))

    return max(of_order(order) for order in itertools.permutations(range(len(errors))))


def by_definition(logits, labels, valid):
    """The loss of one image by brute force in float64."""
    logits = np.float64(logits).reshape(-1, logits.shape[-1])[valid.ravel()]
    labels = labels.ravel()[valid.ravel()]
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    losses = []
    for c in np.unique(labels):
        truth = np.flatnonzero(labels == c)
        losses.append(extension(np.abs((labels == c) - p[:, c]), truth))
    return np.mean(losses) if losses else 0.0


def images(count, seed):
    """Images of 2 x 3 pixels of which at least one is void, with three classes."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(count, 2, 3, 3))
    labels = rng.integers(0, 3, (count, 2, 3))
    valid = rng.random((count, 2, 3)) < 0.8
    valid[:, 0, 0] = False
    valid[0] = False
    return logits, labels, valid


def test_lovasz_is_its_definition():
    logits, labels, valid = images(12, 0)
    with jax.enable_x64():
        found = lovasz_softmax(jnp.array(logits), jnp.array(labels), jnp.array(valid))
        expected = [by_definition(*image) for image in zip(logits, labels, valid, strict=True)]
        assert found.dtype == jnp.float64 and found[0] == 0 and min(expected[1:]) > 0
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_gradient_of_lovasz_is_that_of_its_definition():
    logits, labels, valid = images(3, 1)
    with jax.enable_x64():
        gradient = jax.grad(
            lambda z: jnp.sum(lovasz_softmax(z, jnp.array(labels), jnp.array(valid)))
        )(jnp.array(logits))
    step, expected = 1e-6, np.zeros_like(logits)
    for index in np.ndindex(*logits.shape):
        values = []
        for sign in (1, -1):
            moved = logits.copy()
            moved[index] += sign * step
            values.append(by_definition(moved[index[0]], labels[index[0]], valid[index[0]]))
        expected[index] = (values[0] - values[1]) / (2 * step)
    np.testing.assert_allclose(gradient, expected, atol=1e-8)
    assert np.all(np.asarray(gradient)[~valid] == 0) and np.abs(expected[1:]).max() > 0.01


def test_a_perfect_picture_costs_nothing_and_a_wrong_one_all():
    labels, valid = np.array([[[0, 1], [1, 2]]]), np.ones((1, 2, 2), bool)
    right = 50.0 * np.eye(3)[labels]
    assert lovasz_softmax(right, labels, valid)[0] == pytest.approx(0, abs=1e-6)
    assert cross_entropy(right, labels, valid)[0] == pytest.approx(0, abs=1e-6)
    wrong = 50.0 * np.eye(3)[(labels + 1) % 3]
    assert lovasz_softmax(wrong, labels, valid)[0] == pytest.approx(1, abs=1e-6)


def test_image_iou_is_the_mean_over_the_objects_of_each_image():
    labels = np.array([[0, 0, 1, 1, 2, 2], [0, 0, 0, 0, 0, 0], [2, 2, 2, 0, 0, 255]])
    guesses = np.array([[0, 1, 1, 1, 0, 2], [0, 0, 1, 0, 0, 0], [2, 0, 0, 0, 0, 2]])
    matrices = np.zeros((3, 3, 3), int)
    for row in range(3):
        for truth, guess in zip(labels[row], guesses[row], strict=True):
            if truth != 255:
                matrices[row, truth, guess] += 1
    found, has_object = image_iou(jnp.array(matrices))
    # 2 / 3 and 1 / 2; an image without an object; 1 / 3.
    np.testing.assert_allclose(found, [(2 / 3 + 1 / 2) / 2, 0, 1 / 3], rtol=1e-6)
    assert has_object.tolist() == [True, False, True]


def pictures(count=40, size=16):
    """Labels, and pictures of which the first channel is the label times 10."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 20, (count, size // 8, size // 8))
    labels = coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)
    return np.stack([10 * labels, 0 * labels], axis=-1).astype(np.uint8), labels


def test_labels_move_with_their_pictures():
    examples, labels = pictures()
    augment = jax.jit(scale_crop_and_flip(0.5, flip=True, ignore=255, color=(251.0, 7.0)))
    moved, truth = (np.asarray(x) for x in augment(jax.random.key(0), examples, labels))
    assert moved.dtype == truth.dtype == np.uint8 and moved.shape == examples.shape
    canvas = truth == 255
    assert 0.02 < canvas.mean() < 0.6
    np.testing.assert_array_equal(moved[canvas], np.broadcast_to((251, 7), moved[canvas].shape))
    # Between two blocks the picture is a mixture of both; elsewhere it is the label.
    inside = ~canvas
    agrees = np.abs(moved[..., 0].astype(int) - 10 * truth.astype(int))[inside] <= 1
    assert agrees.mean() > 0.7 and np.all(moved[inside][:, 1] == 0)
    known = [
        set(np.unique(t)) - {255} <= set(np.unique(o)) for t, o in zip(truth, labels, strict=True)
    ]
    assert all(known)


def test_scales_places_and_mirrors_are_drawn_over_their_range():
    # A gradient from left to right tells scale, place and direction.
    ramp = np.broadcast_to(np.arange(64, dtype=np.uint8), (200, 64, 64))
    examples = np.stack([3 * ramp], axis=-1)
    augment = jax.jit(scale_crop_and_flip(0.5, flip=True, ignore=255, color=(0.0,)))
    _, truth = augment(jax.random.key(1), examples, ramp)
    scales, starts, mirrored = [], [], []
    for row in np.asarray(truth)[:, 32].astype(int):
        inside = np.flatnonzero(row != 255)
        first, last = row[inside[0]], row[inside[-1]]
        mirrored.append(first > last)
        scales.append((len(inside) - 1) / abs(last - first))
        starts.append(inside[0])
    assert 0.45 < min(scales) < 0.6 and 1.4 < max(scales) < 1.55
    assert 0.4 < np.mean(np.array(scales) < 1) < 0.6 and 0.4 < np.mean(mirrored) < 0.6
    assert max(starts) > 20


def test_without_jitter_and_mirrors_nothing_changes():
    examples, labels = pictures(3)
    same = scale_crop_and_flip(0.0, flip=False, ignore=255, color=(0.0, 0.0))(
        jax.random.key(0), examples, labels
    )
    np.testing.assert_array_equal(same[0], examples)
    np.testing.assert_array_equal(same[1], labels)
