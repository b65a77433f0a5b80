"""What generated images are scored with: labels of a trained network, features of real images."""

import types

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.data.label_images import CITYSCAPES_IDS, CITYSCAPES_TRAINED
from experiments.models import scene_net
from experiments.tasks import features


class Brightest(nn.Module):
    """The class of a pixel is its brightest channel."""

    @nn.compact
    def __call__(self, images, train):
        return self.param("weight", nn.initializers.ones, ()) * images


def test_a_trained_network_labels_images_of_any_size():
    task = types.SimpleNamespace(model=Brightest(), normalize=lambda x: (x - 5.0) / 3.0)
    variables = {"params": {"weight": jnp.float32(2.0)}}
    truth = np.array([0, 1, 2, 255], np.uint8)
    labels = np.array([[[0, 1], [2, 3]]])
    images = 2 * np.eye(3, dtype=np.float32)[np.array([[[0, 1], [2, 0]]])] - 1
    for size in ((2, 2), (8, 8)):  # Of its own size, and four times as large.
        segmenter = features.segmenter_of_task(task, variables, size, truth)
        np.testing.assert_array_equal(segmenter.predict(images), [[[0, 1], [2, 0]]])
    np.testing.assert_array_equal(segmenter.truth(jnp.asarray(labels)), [[[0, 1], [2, 255]]])
    assert segmenter.num_classes == 3 and segmenter.ignore == 255


def made(names):
    split = Split(np.zeros((1, 2, 2, 3), np.uint8), np.zeros((1, 2, 2), np.uint8))
    return Dataset("made", split, split, tuple(names) + tuple(f"{n}, edge" for n in names), "")


def test_what_a_network_should_find_for_labels_with_edges():
    assert features.truth_of(made("abc")).tolist() == [0, 1, 2, 0, 1, 2]
    cities = features.truth_of(made(CITYSCAPES_IDS))
    half = len(CITYSCAPES_IDS)
    for index, raw in enumerate(CITYSCAPES_TRAINED):
        assert cities[raw] == cities[raw + half] == index
    assert np.sum(cities == 255) == 2 * (half - 19)
    # Cityscapes' own table: road 0, car 13, bicycle 18; "ego vehicle" has no training id.
    assert (cities[7], cities[26], cities[33], cities[1]) == (0, 13, 18, 255)


def test_features_of_real_images_are_of_images_that_are_not_evaluated():
    images = np.random.default_rng(0).integers(0, 256, (90, 2, 2, 3), dtype=np.uint8)
    images[:, 0, 0, 0] = np.arange(90)
    split = Split(images, np.zeros((90, 2, 2), np.uint8))
    dataset = Dataset("made", split, split, ("a",), "")
    pixel = features.Features("pixel", lambda x: x.reshape(len(x), -1))
    found = features.of_real_images(dataset, pixel, count=40, used=30)
    assert found.shape == (40, 12)
    chosen = np.rint((found[:, 0] + 1) * 127.5).astype(int)
    assert len(set(chosen)) == 40 and not set(chosen) & set(range(0, 90, 3))
    np.testing.assert_allclose(found, images[chosen].reshape(40, -1) / 127.5 - 1, atol=1e-6)
    # Every image is evaluated: none is left.
    assert len(features.of_real_images(dataset, pixel, count=40, used=90)) == 0


def test_the_projects_own_network_resizes_what_it_does_not_know():
    images = np.random.default_rng(0).uniform(-1, 1, (2, 16, 32, 3)).astype(np.float32)
    assert scene_net.resized(images).shape == (2, 64, 64, 3)
    known = np.zeros((1, 64, 64, 3), np.float32)
    assert scene_net.resized(known) is known
    assert features.of_scenes().compute(known).shape == (1, scene_net.FEATURES)
