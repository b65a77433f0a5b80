import collections

import numpy as np
import pytest

from experiments import data
from experiments.data import digit_scenes, digits
from experiments.system.errors import ConfigError

SMALL = {"size": 48, "train": 12, "validation": 6, "test": 8}


@pytest.fixture(scope="module")
def dataset():
    return digit_scenes.load(**SMALL)


def test_shapes_classes_and_the_rim(dataset):
    sizes = {name: part.examples.shape for name, part in dataset.splits().items()}
    assert sizes == {
        "train": (12, 48, 48, 3),
        "validation": (6, 48, 48, 3),
        "test": (8, 48, 48, 3),
    }
    assert dataset.train.labels.shape == (12, 48, 48)
    assert {part.labels.dtype for part in dataset.splits().values()} == {np.dtype(np.uint8)}
    assert dataset.class_names[:3] == ("background", "0", "1") and dataset.num_classes == 11
    assert dataset.ignore_label == 255 and not dataset.mirror_symmetric
    labels = dataset.train.labels
    shares = [np.mean(labels == 0), np.mean((labels > 0) & (labels < 255)), np.mean(labels == 255)]
    assert shares[0] > 0.6 and shares[1] > 0.05 and 0.01 < shares[2] < 0.15


def test_the_same_seed_gives_the_same_scenes_and_another_gives_others(dataset):
    again, other = digit_scenes.load(**SMALL), digit_scenes.load(**SMALL, seed=1)
    for name, part in dataset.splits().items():
        np.testing.assert_array_equal(part.examples, again.splits()[name].examples)
        np.testing.assert_array_equal(part.labels, again.splits()[name].labels)
        assert np.any(part.examples != other.splits()[name].examples)


def test_a_smaller_training_set_is_the_beginning_of_a_larger_and_leaves_the_rest(dataset):
    smaller = digit_scenes.load(**SMALL | {"train": 5})
    np.testing.assert_array_equal(smaller.train.examples, dataset.train.examples[:5])
    np.testing.assert_array_equal(smaller.test.examples, dataset.test.examples)


def test_scans_and_photo_columns_of_one_split_are_in_no_other():
    scans, places = {}, {}
    for split in digit_scenes.SPLITS:
        drawn = list(digit_scenes.scenes(split, 400, seed=3))
        scans[split] = {digit.scan for scene in drawn for digit in scene.digits}
        places[split] = {
            (scene.photo, column)
            for scene in drawn
            for column in range(scene.left, scene.left + scene.side)
        }
        assert collections.Counter(len(scene.digits) for scene in drawn).keys() == {1, 2, 3, 4}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not scans[one] & scans[other] and not places[one] & places[other]
    # Nearly all of what there is is shown.
    assert sum(map(len, scans.values())) > 0.6 * len(digits.scans()[1])
    assert sum(map(len, places.values())) > 0.95 * 2 * 640


def test_a_scene_shows_its_piece_of_the_photograph_and_no_pixel_beside_it(monkeypatch):
    real = digit_scenes.photos()
    for split in digit_scenes.SPLITS:
        first, end = digit_scenes.columns(split, 640)
        painted = [np.full_like(photo, 255) for photo in real]
        for photo in painted:
            photo[:, first:end] = 100
        monkeypatch.setattr(digit_scenes, "photos", lambda painted=painted: tuple(painted))
        for scene in digit_scenes.scenes(split, 20, seed=0):
            image, labels, _ = digit_scenes.draw(scene, 48)
            far = ~digit_scenes._dilated(digit_scenes._dilated(labels > 0))
            # No white from the columns of the others; a trace of thin ink may be left.
            assert far.any() and np.median(image[far]) == 100
            background = digit_scenes.draw(
                digit_scenes.Scene(scene.photo, scene.top, scene.left, scene.side, ()), 48
            )[0]
            np.testing.assert_array_equal(background, 100)


def plain(scan, **changes):
    about = {"row": 0.5, "column": 0.5, "width": 0.5, "angle": 0.0}
    return digit_scenes.Digit(scan, **about | changes, color=np.ones(3, np.float32))


def drawn(*found, size=32):
    return digit_scenes.draw(digit_scenes.Scene(1, 0, 0, 64, found), size)


def test_a_digit_is_drawn_at_its_place_turned_and_scaled_with_a_rim_of_one_pixel():
    images, classes = digits.scans()
    image, labels, instances = drawn(plain(7))
    inside = labels == classes[7] + 1
    np.testing.assert_array_equal(instances, inside)
    # Twice the scan's 8 pixels: the mean of each 2 x 2 block is near the scan's own ink.
    blocks = np.zeros((8, 8))
    blocks[:] = inside[8:24, 8:24].reshape(8, 2, 8, 2).mean((1, 3))
    assert np.corrcoef(blocks.ravel(), images[7].ravel())[0, 1] > 0.9
    assert image[inside].mean() > 150
    # The rim is every pixel beside the digit and no other.
    beside = np.zeros_like(inside)
    for row, column in np.argwhere(inside):
        beside[max(0, row - 1) : row + 2, max(0, column - 1) : column + 2] = True
    np.testing.assert_array_equal(labels == 255, beside & ~inside)
    moved = drawn(plain(7, row=0.5 + 3 / 32, column=0.5 - 4 / 32))[1]
    np.testing.assert_array_equal(moved, np.roll(labels, (3, -4), (0, 1)))
    turned = drawn(plain(7, angle=np.pi / 2))[1]
    np.testing.assert_array_equal(turned, np.rot90(labels, -1))  # -1: clockwise


def test_a_later_digit_covers_an_earlier_one():
    _, labels, instances = drawn(plain(0), plain(1))
    alone = drawn(plain(1))[1]
    np.testing.assert_array_equal(labels[alone > 0], alone[alone > 0])
    assert set(np.unique(instances)) == {0, 1, 2}


def test_with_edges_labels_hold_the_class_and_the_border_of_each_instance(dataset):
    edged = digit_scenes.load(**SMALL, edges=True)
    np.testing.assert_array_equal(edged.train.examples, dataset.train.examples)
    classes, edges = edged.train.labels % 11, edged.train.labels // 11
    assert set(np.unique(edges)) == {0, 1}
    assert (edged.num_classes, edged.ignore_label) == (22, None)
    known = dataset.train.labels != 255
    np.testing.assert_array_equal(classes[known], dataset.train.labels[known])
    # Where classes differ an edge is; instances of one class may touch, too.
    assert np.all(edges[digit_scenes.edge_map(classes)] == 1)
    instances = np.array([[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 2, 2]])
    expected = [[0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 0]]
    np.testing.assert_array_equal(digit_scenes.edge_map(instances), expected)


@pytest.mark.parametrize(
    "argument, value",
    [("size", 31), ("size", 10**9), ("train", 0), ("validation", -1), ("test", 0), ("seed", -1)],
)
def test_arguments_too_small_or_too_large_are_refused(argument, value):
    with pytest.raises(ConfigError, match=f"{argument}: got {value}; accepted: integers from"):
        digit_scenes.load(**{argument: value})


def test_it_is_loaded_by_its_name(tmp_path):
    loaded = data.load("digit_scenes", str(tmp_path), seed=2, **SMALL)
    np.testing.assert_array_equal(
        loaded.test.labels, digit_scenes.load(**SMALL, seed=2).test.labels
    )


@pytest.mark.parametrize("preferred", ["voc", "cityscapes"])
def test_auto_takes_it_until_the_real_data_is_prepared(preferred, tmp_path):
    lines = []
    found = data.load("auto", str(tmp_path), preferred=preferred, notice=lines.append, **SMALL)
    assert found.name == "digit_scenes"
    (line,) = lines
    assert f"python -m experiments.prepare_data {preferred} --source=FOLDER --data_dir=" in line
