import dataclasses
import pickle

import numpy as np
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.data.mapped import MappedRows
from experiments.data.validation import with_validation
from experiments.system.errors import ConfigError


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
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 5, 4), np.uint8), "labels"),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((3, 4, 5), np.uint8), "labels"),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((2, 4, 5), np.int64), "labels"),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros((3, 4), np.float32), "labels"),
        (np.zeros((2, 4, 5, 3), np.uint8), np.zeros(2, bool), "labels"),
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
    with pytest.raises(
        ValueError, match=f"^{name}: got labels from {label} to {label}; accepted: 0 to 1"
    ):
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


def scenes(count=4, ignored=False, dtype=np.uint8):
    """Images with images of labels; 255 does not count."""
    labels = np.random.default_rng(0).integers(0, 2, (count, 4, 5)).astype(dtype)
    if ignored:
        labels[:, 0] = 255
    return Split(np.zeros((count, 4, 5, 3), np.uint8), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_labels_may_be_images_with_a_value_that_does_not_count(dtype):
    made = dataset(train=scenes(dtype=dtype), test=scenes(2, True, dtype), ignore_label=255)
    assert made.num_classes == 2 and made.ignore_label == 255
    assert len(made.train) == 4 and made.train.has_classes
    with pytest.raises(ConfigError, match="^test: got labels from 0 to 255; accepted: 0 to 1"):
        dataset(train=scenes(dtype=dtype), test=scenes(2, True, dtype))
    with pytest.raises(ConfigError, match=r"^test: got labels from 0 to 255; .* and 254 \(ignored"):
        dataset(train=scenes(dtype=dtype), test=scenes(2, True, dtype), ignore_label=254)


def test_a_single_stray_label_far_inside_is_found():
    many = scenes(1000)
    many.labels[777, 3, 2] = 2
    with pytest.raises(ConfigError, match="^train: got labels from 0 to 2"):
        dataset(train=many, test=scenes())


def test_all_labels_may_be_ignored_and_classes_may_be_too():
    labels = np.array([-1, 0, 1, -1], np.int32)
    part = Split(np.zeros((4, 4, 5, 3), np.uint8), labels)
    made = dataset(train=part, test=part, ignore_label=-1)
    assert len(made.train.subset(3)) == 3
    with pytest.raises(ConfigError, match="^train: got labels from -1 to 1"):
        dataset(train=part, test=part)
    none = Split(part.examples, np.full(4, -1, np.int32))
    assert dataset(train=none, test=none, ignore_label=-1).num_classes == 2


def test_the_labels_of_all_splits_are_of_one_kind():
    with pytest.raises(
        ConfigError, match=r"^test: got labels of shape \(\); accepted: the shape of"
    ):
        dataset(train=scenes(), test=split(shape=(4, 5, 3)))


@pytest.mark.parametrize("shape", [(), (3,), (4, 5, 1)])
def test_labels_may_be_any_floats_without_classes(shape):
    def part(count):
        targets = np.linspace(-5, 5, count * int(np.prod(shape)), dtype=np.float32)
        return Split(np.zeros((count, 4, 5, 3), np.uint8), targets.reshape(count, *shape))

    made = dataset(train=part(6), test=part(2), class_names=())
    assert made.num_classes == 0 and not made.train.has_classes
    assert made.with_train_examples(4).train.labels.shape == (4, *shape)


@pytest.mark.parametrize("kind", ["images", "floats"])
def test_a_subset_of_labels_that_are_no_classes_is_drawn_from_all_and_grows(kind):
    numbers = np.arange(60, dtype=np.uint8)
    labels = numbers.astype(np.float32)
    if kind == "images":
        labels = np.zeros((60, 1, 1), np.uint8) + numbers[:, None, None]
    whole, before = Split(numbers.reshape(60, 1, 1, 1), labels), set()
    for count in (1, 5, 30, 60):
        part = whole.subset(count)
        chosen = part.examples.ravel().tolist()
        assert len(part) == count and chosen == sorted(chosen) and before <= set(chosen)
        np.testing.assert_array_equal(part.labels.ravel(), chosen)
        before = set(chosen)
    assert whole.subset(60) is whole
    half = set(whole.subset(30).examples.ravel().tolist())
    assert 5 < len(half & set(range(30))) < 25  # not the first ones, not every second one


def test_a_dataset_with_fewer_training_examples_keeps_the_rest():
    made = dataset(train=split(10), validation=split(3))
    fewer = made.with_train_examples(4)
    assert len(fewer.train) == 4
    assert fewer.test is made.test and fewer.validation is made.validation
    assert made.with_train_examples(10).fingerprint == made.fingerprint
    for count in (0, -1, 11):
        with pytest.raises(ConfigError, match=f"^train_examples: got {count}; accepted: 1 to 10"):
            made.with_train_examples(count)


def test_the_fingerprint_changes_with_everything_that_is_learnt_and_with_nothing_else():
    made = dataset(train=split(10))
    changed = split(10)
    changed.examples[9, 3, 4, 2] = 1
    relabelled = split(10)
    relabelled.labels[9] = 1
    others = [
        made,
        dataset(train=changed),
        dataset(train=relabelled),
        dataset(train=split(10), test=split(3)),
        dataset(train=split(10), validation=split(2)),
        dataset(train=split(10), class_names=("a", "c")),
        dataset(train=split(10), ignore_label=7),
        dataset(train=split(10, shape=(5, 4, 3)), test=split(2, shape=(5, 4, 3))),
        made.with_train_examples(9),
        made.with_train_examples(8),
        dataclasses.replace(made, train=Split(made.train.examples, made.train.labels, "stored")),
    ]
    assert len({other.fingerprint for other in others}) == len(others)
    assert all(len(other.fingerprint) == 64 for other in others)
    same = dataset(train=split(10), provenance="elsewhere", data_dir="/elsewhere", name="other")
    assert same.fingerprint == made.fingerprint


def test_a_known_digest_is_taken_and_a_subset_of_it_is_another():
    class Unread(np.ndarray):
        def __getitem__(self, index):
            raise AssertionError("the examples are read")

    examples = np.zeros((10, 4, 5, 3), np.uint8).view(Unread)
    part = Split(examples, np.zeros(10, np.int32), "0" * 64)
    assert part.fingerprint == "0" * 64
    readable = Split(np.zeros((10, 4, 5, 3), np.uint8), part.labels, part.digest)
    subsets = {readable.subset(count).fingerprint for count in (5, 6, 10)}
    assert len(subsets) == 3 and part.digest in subsets


def test_channel_statistics_are_computed_once(monkeypatch):
    part = split(4)
    first = part.channel_statistics
    monkeypatch.setattr("experiments.data.normalize.channel_statistics", None)
    assert part.channel_statistics is first


def test_memory_mapped_examples_are_pickled_as_the_place_of_their_file(tmp_path):
    examples = np.arange(4000 * 6 * 5 * 1, dtype=np.uint8).reshape(4000, 6, 5, 1)
    np.save(tmp_path / "examples.npy", examples)
    mapped = np.load(tmp_path / "examples.npy", mmap_mode="r")
    labels = np.arange(4000, dtype=np.int32)
    whole, part = Split(mapped, labels, digest="d"), Split(mapped[7:], labels[7:])
    text = pickle.dumps(whole)
    assert len(text) < 20_000
    again = pickle.loads(text)
    assert isinstance(again.examples, np.memmap) and again.fingerprint == "d"
    np.testing.assert_array_equal(again.examples, examples)
    np.testing.assert_array_equal(again.labels, labels)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(part)).examples, examples[7:])


@pytest.fixture
def mapped(tmp_path):
    """A split of 40 memory-mapped examples and images of labels, and the arrays themselves."""
    examples = np.random.default_rng(0).integers(0, 256, (40, 4, 6, 3), np.uint8)
    labels = examples[..., 0] // 64
    for name, array in (("examples", examples), ("labels", labels)):
        np.save(tmp_path / f"{name}.npy", array)
    on_disk = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("examples", "labels"))
    return Split(*on_disk), Split(examples, labels)


@pytest.mark.parametrize(
    "rows", [np.array([7, 3, 3]), np.arange(40) % 3 == 1, slice(None, None, 4), np.array([], int)]
)
def test_rows_of_a_memory_mapped_split_stay_on_the_disk(mapped, rows):
    on_disk, in_memory = (split.take(rows) for split in mapped)
    assert isinstance(on_disk.examples, MappedRows) and isinstance(on_disk.labels, MappedRows)
    again = pickle.loads(pickle.dumps(on_disk)), on_disk.take(slice(None))
    for one in (on_disk, *again):
        assert len(one) == len(in_memory) and one.fingerprint == in_memory.fingerprint
        for name in ("examples", "labels"):
            found, expected = getattr(one, name), getattr(in_memory, name)
            assert isinstance(found, MappedRows)
            assert (found.shape, found.dtype, found.ndim) == (
                expected.shape, expected.dtype, expected.ndim,
            )  # fmt: skip
            assert found.nbytes == expected.nbytes
            np.testing.assert_array_equal(np.asarray(found), expected)
            np.testing.assert_array_equal(found[1:], expected[1:])


def test_parts_of_a_memory_mapped_dataset_are_the_same_examples_and_stay_on_the_disk(mapped):
    on_disk, in_memory = (
        with_validation(
            Dataset("made", split, split, ("a", "b", "c", "d"), "").with_train_examples(30), 0.2
        )
        for split in mapped
    )
    for name, count in {"train": 24, "validation": 6}.items():
        found, expected = on_disk.splits()[name], in_memory.splits()[name]
        assert isinstance(found.examples, MappedRows) and len(found) == count
        np.testing.assert_array_equal(np.asarray(found.examples), expected.examples)
        np.testing.assert_array_equal(np.asarray(found.labels), expected.labels)
        np.testing.assert_array_equal(found.channel_statistics, expected.channel_statistics)
