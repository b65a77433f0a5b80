"""--validation: a stratified share of the training examples, always the same."""

import numpy as np
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.data.validation import with_validation
from experiments.system.errors import ConfigError


def dataset(labels):
    labels = np.asarray(labels, np.int32)
    numbers = np.arange(len(labels), dtype=np.uint8).reshape(-1, 1, 1, 1)  # says which it is
    train = Split(numbers, labels)
    return Dataset("made", train, train.subset(2), ("a", "b", "c"), "made here")


def test_every_class_gives_its_share_and_no_example_is_on_both_sides():
    made = dataset([0] * 50 + [1] * 30 + [2] * 20)
    split = with_validation(made, 0.1)
    assert np.bincount(split.validation.labels).tolist() == [5, 3, 2]
    assert np.bincount(split.train.labels).tolist() == [45, 27, 18]
    both = np.concatenate([x.examples.ravel() for x in (split.train, split.validation)])
    np.testing.assert_array_equal(np.sort(both), made.train.examples.ravel())
    for part in (split.train, split.validation):  # an example keeps its label
        np.testing.assert_array_equal(part.labels, made.train.labels[part.examples.ravel()])
    np.testing.assert_array_equal(split.test.examples, made.test.examples)


def test_the_examples_are_drawn_and_always_the_same():
    made = dataset([0] * 100)
    chosen = with_validation(made, 0.2).validation.examples.ravel()
    np.testing.assert_array_equal(chosen, with_validation(made, 0.2).validation.examples.ravel())
    assert not np.array_equal(chosen, np.arange(20)) and abs(chosen.mean() - 49.5) < 20


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan"), 1e-6])
def test_a_share_without_examples_on_both_sides_is_refused(share):
    with pytest.raises(ConfigError, match="validation: got"):
        with_validation(dataset([0, 1, 2]), share)
