"""Segmentation: void pixels count nowhere, and mean IoU comes from the summed matrix."""

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.tasks.segmentation import segmentation
from experiments.training.execution import Executor
from tests.experiments.small import HOST

IGNORED = 255


class PixelClassifier(nn.Module):
    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(3, use_bias=False)(images)


def scenes(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (count, 4, 6)).astype(np.int32)
    labels[rng.random(labels.shape) < 0.2] = IGNORED
    return Split(rng.integers(0, 256, (count, 4, 6, 2), dtype=np.uint8), labels)


@pytest.fixture(scope="module")
def dataset():
    return Dataset(
        "scenes", scenes(8, 0), scenes(7, 1), ("sky", "tree", "road"), "", ignore_label=IGNORED
    )


def make(dataset):
    schedule = optax.constant_schedule(0.1)
    task = segmentation(PixelClassifier(), dataset, optax.sgd(schedule), schedule)
    return task, Executor(task, dataset, 4, HOST)


def test_pixels_are_counted_beyond_32_bits(dataset):
    task, _ = make(dataset)
    labels = np.zeros((1, 256, 256), np.int32)
    labels[0, 0] = 1
    logits = np.broadcast_to(np.float32([1, 0, 0]), (*labels.shape, 3))
    sums = jax.jit(task.statistics)(logits, labels, np.array([True]))
    # An epoch of Pascal VOC: steps are added on the device, in 32 bits, until the next evaluation.
    steps = jax.tree.map(lambda x: x * np.asarray(70_000, x.dtype), sums)
    found = task.finalize(jax.tree.map(lambda x: np.asarray(x, np.float64), steps))
    assert found["pixel_accuracy"] == pytest.approx(255 / 256)
    assert found["mean_iou"] == pytest.approx(255 / 256 / 2)


def test_metrics_by_hand(dataset):
    task, engine = make(dataset)
    state = engine.initial_state(0)
    split = dataset.test
    logits = np.asarray(
        task.model.apply(state.state.variables, task.normalize(split.examples), train=False)
    ).astype(np.float64)
    predicted, counted = logits.argmax(axis=-1), split.labels != IGNORED
    unions = [np.sum(((predicted == c) | (split.labels == c)) & counted) for c in range(3)]
    hits = [np.sum((predicted == c) & (split.labels == c)) for c in range(3)]
    losses = (
        np.log(np.exp(logits).sum(axis=-1))
        - np.take_along_axis(logits, np.where(counted, split.labels, 0)[..., None], axis=-1)[..., 0]
    )
    per_image = [losses[i][counted[i]].mean() for i in range(len(split))]
    found = engine.evaluate(state, split)
    assert found["mean_iou"] == pytest.approx(np.mean(np.divide(hits, unions)))
    assert found["pixel_accuracy"] == pytest.approx(sum(hits) / counted.sum())
    assert found["loss"] == pytest.approx(np.mean(per_image), rel=1e-5)


def test_void_pixels_have_no_gradient(dataset):
    task, engine = make(dataset)
    state = engine.initial_state(0).state
    images, labels = dataset.train.examples[:4], dataset.train.labels[:4].copy()
    changed = images.copy()
    changed[labels == IGNORED] = 99

    def gradient(examples):
        def loss(params):
            logits = task.model.apply({"params": params}, task.normalize(examples), train=True)
            return task.loss(logits, labels).mean()

        return jax.grad(loss)(state.params)["Dense_0"]["kernel"]

    np.testing.assert_allclose(gradient(images), gradient(changed), rtol=1e-6)


def test_it_learns(dataset):
    from experiments.training.execution import batches

    _, engine = make(dataset)
    state = engine.initial_state(0)
    before = engine.evaluate(state, dataset.train)["loss"]
    state = engine.train(state, batches(0, 8, 4, 0), 1, 0)
    order = batches(0, 8, 4, 1)
    for _ in range(20):
        state = engine.train(state, order, 1, 0)
    assert engine.evaluate(state, dataset.train)["loss"] < before
