"""Normalisation, checked against NumPy in float64."""

import jax
import numpy as np

from experiments.data import digits, normalize
from experiments.data.dataset import Split
from experiments.data.normalize import channel_statistics, normalizer


def test_normalized_channels_have_mean_zero_and_deviation_one():
    rng = np.random.default_rng(0)
    examples = np.stack(
        [rng.integers(0, 256, (40, 8, 8)), rng.integers(100, 120, (40, 8, 8))], axis=-1
    ).astype(np.uint8)
    split = Split(examples, np.zeros(40, np.int32))
    for function in (normalizer(split), jax.jit(normalizer(split))):
        normalized = np.asarray(function(examples), np.float64)
        assert function(examples).dtype == np.float32
        np.testing.assert_allclose(normalized.mean(axis=(0, 1, 2)), 0, atol=1e-5)
        np.testing.assert_allclose(normalized.std(axis=(0, 1, 2)), 1, atol=1e-5)


def test_the_statistics_are_those_of_the_pixels_in_float64():
    split = digits.load(size=8).train
    mean, deviation = channel_statistics(split)
    pixels = split.examples.astype(np.float64) / 255
    np.testing.assert_allclose(mean, pixels.mean(axis=(0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(deviation, pixels.std(axis=(0, 1, 2)), rtol=1e-6)
    assert mean.dtype == deviation.dtype == np.float32


def test_a_constant_channel_does_not_divide_by_zero():
    split = Split(np.full((3, 2, 2, 1), 7, np.uint8), np.zeros(3, np.int32))
    mean, deviation = channel_statistics(split)
    np.testing.assert_allclose(mean, 7 / 255, rtol=1e-6)
    assert deviation > 0
    np.testing.assert_allclose(normalizer(split)(split.examples), 0, atol=1e-4)


def test_statistics_of_large_examples_are_those_of_an_even_sample(monkeypatch):
    monkeypatch.setattr(normalize, "SAMPLED_BYTES", 3 * 64)
    monkeypatch.setattr(normalize, "_BYTES_AT_ONCE", 64)
    examples = np.zeros((5, 8, 8, 1), np.uint8)
    examples[[0, 2, 4]] = np.array([10, 20, 60]).reshape(3, 1, 1, 1)
    examples[[1, 3]] = 255  # Not looked at: three examples of 64 bytes are.
    mean, deviation = channel_statistics(Split(examples, np.zeros(5, np.int32)))
    np.testing.assert_allclose(mean, 30 / 255, rtol=1e-6)
    np.testing.assert_allclose(deviation, np.std([10, 20, 60]) / 255, rtol=1e-6)
