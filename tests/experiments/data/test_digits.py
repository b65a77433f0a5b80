import subprocess
import sys

import numpy as np
import pytest

from experiments.data import digits
from experiments.system.errors import ConfigError


def test_the_split_is_fixed_stratified_and_whole():
    dataset = digits.load()
    assert dataset.train.examples.shape == (1437, 32, 32, 3)
    assert dataset.test.examples.shape == (360, 32, 32, 3)
    assert not dataset.mirror_symmetric
    train, test = np.bincount(dataset.train.labels), np.bincount(dataset.test.labels)
    assert np.all(np.abs(test - (train + test) * 360 / 1797) < 1)  # a share, up to rounding

    again = digits.load()
    np.testing.assert_array_equal(dataset.train.examples, again.train.examples)
    np.testing.assert_array_equal(dataset.test.labels, again.test.labels)


def test_scans_and_split_are_those_of_scikit_learn_which_is_not_imported_for_them():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    theirs = load_digits()
    images, labels = digits.scans()
    np.testing.assert_array_equal(images, (theirs.images / 16).astype(np.float32))
    np.testing.assert_array_equal(labels, theirs.target)
    order = np.arange(len(labels))
    split = train_test_split(order, test_size=0.2, stratify=labels, random_state=0)
    dataset = digits.load(size=8)
    for part, chosen in zip((dataset.train, dataset.test), split, strict=True):
        np.testing.assert_array_equal(part.examples[..., 0], digits.upsample(images, 8)[chosen])
        np.testing.assert_array_equal(part.labels, labels[chosen])
    code = "import sys; from experiments.data import digits; digits.load(); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"sklearn", "scipy.stats"} & set(run.stdout.split())


def test_every_scan_is_in_exactly_one_split():
    scans, labels = digits.scans()
    size8 = digits.load(size=8)  # at their own size the scans come through unchanged
    expected = sorted(
        (np.rint(255 * scan).astype(np.uint8).tobytes(), label)
        for scan, label in zip(scans, labels, strict=True)
    )
    found = sorted(
        (image[..., 0].tobytes(), label)
        for part in size8.splits().values()
        for image, label in zip(part.examples, part.labels, strict=True)
    )
    assert found == expected


def test_scaling_neither_shifts_nor_dims():
    scans = digits.scans()[0][:200]
    scaled = digits.upsample(scans, 32).astype(int)
    for axis in (1, 2):  # a shift by any part of a pixel would not commute with a flip
        flipped = np.flip(digits.upsample(np.flip(scans, axis), 32), axis).astype(int)
        assert np.abs(scaled - flipped).max() <= 1
    np.testing.assert_allclose(scaled.mean() / 255, scans.mean(), rtol=0.05)


@pytest.mark.parametrize("size", [-1, 0, 7, 513, 10**9])
def test_a_size_that_is_too_small_or_too_large_is_refused(size):
    with pytest.raises(ConfigError, match=f"size: got {size}; accepted: 8 to 512 pixels"):
        digits.load(size=size)
