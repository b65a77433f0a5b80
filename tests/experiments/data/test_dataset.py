import numpy as np
import pytest

from experiments.data.dataset import Dataset, Split


def split(count=3, shape=(4, 5, 3), label=0):
    return Split(np.zeros((count, *shape), np.uint8), np.full(count, label, np.int32))


def dataset(**changes):
    fields = {
        "name": "made",
        "train": split(),
        "test": split(2),
        "class_names": ("a", "b"),
        "provenance": "made here",
    }
    return Dataset(**{**fields, **changes})


def test_a_split_is_as_long_as_its_labels_and_holds_images_or_clips():
    assert len(split(7)) == 7
    assert len(split(2, shape=(16, 4, 5, 3))) == 2
    assert len(split(0)) == 0


@pytest.mark.parametrize(
    "examples, labels, named",
    [
        (np.zeros((2, 4, 4, 3), np.float32), np.zeros(2, np.int32), "examples"),
        (np.zeros((2, 4, 4), np.uint8), np.zeros(2, np.int32), "examples"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(2, np.int64), "labels"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros(3, np.int32), "labels"),
        (np.zeros((2, 4, 4, 3), np.uint8), np.zeros((2, 1), np.int32), "labels"),
    ],
)
def test_a_split_names_the_field_that_does_not_fit(examples, labels, named):
    with pytest.raises(ValueError, match=f"^{named}: got .* accepted"):
        Split(examples, labels)


def test_a_dataset_names_its_splits_shape_and_classes():
    made = dataset(validation=split(1))
    assert {name: len(part) for name, part in made.splits().items()} == {
        "train": 3,
        "validation": 1,
        "test": 2,
    }
    assert made.example_shape == (4, 5, 3)
    assert made.num_classes == 2
    assert list(dataset().splits()) == ["train", "test"]


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize("label", [-1, 2])
def test_labels_without_a_class_name_are_refused(name, label):
    with pytest.raises(ValueError, match=f"^{name}: got labels .* accepted are 0 to 1"):
        dataset(**{name: split(label=label)})


@pytest.mark.parametrize("name", ["validation", "test"])
def test_splits_of_different_shapes_are_refused(name):
    with pytest.raises(ValueError, match=f"^{name}: got examples of shape"):
        dataset(**{name: split(shape=(5, 4, 3))})


def test_a_subset_takes_as_many_of_each_class_and_grows():
    # As UCF-101 is stored: class by class; the third class has two examples only.
    labels = np.repeat(np.arange(3, dtype=np.int32), [30, 20, 2])
    examples = np.arange(52, dtype=np.uint8).reshape(52, 1, 1, 1)
    whole = Split(examples, labels)
    before = set()
    for count in (1, 3, 6, 14, 52):
        part = whole.subset(count)
        numbers = part.examples.ravel().tolist()
        assert len(part) == count and numbers == sorted(numbers)
        np.testing.assert_array_equal(part.labels, labels[numbers])
        assert before <= set(numbers)
        before = set(numbers)
    assert np.bincount(whole.subset(6).labels).tolist() == [2, 2, 2]
    assert np.bincount(whole.subset(14).labels).tolist() == [6, 6, 2]
    assert whole.subset(14).examples.ravel().tolist()[:6] != list(range(6))  # drawn at random
