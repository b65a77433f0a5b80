import numpy as np
import pytest
from scipy import stats

from experiments.data import digits, moving_digits
from experiments.data.moving_digits import MOTIONS, Path
from experiments.system.errors import ConfigError

# Rows down, columns right.
DIRECTIONS = {
    "still": (0, 0),
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "down_right": (1, 1),
    "up_right": (-1, 1),
}


@pytest.fixture(scope="module")
def dataset():
    return moving_digits.load(train=100, validation=30, test=50)


def clips_of(split, motion):
    return split.examples[split.labels == MOTIONS.index(motion)].astype(np.float64)


def test_shapes_and_classes(dataset):
    sizes = {name: part.examples.shape for name, part in dataset.splits().items()}
    assert sizes == {
        "train": (100, 16, 32, 32, 3),
        "validation": (30, 16, 32, 32, 3),
        "test": (50, 16, 32, 32, 3),
    }
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [10] * 10)
    assert not dataset.mirror_symmetric
    other = moving_digits.load(size=20, frames=5, train=3, validation=0, test=2)
    assert other.train.examples.shape == (3, 5, 20, 20, 3)
    assert len(other.validation) == 0


def test_the_same_seed_gives_the_same_clips_and_another_gives_others(dataset):
    again = moving_digits.load(train=100, validation=30, test=50)
    other = moving_digits.load(train=100, validation=30, test=50, seed=1)
    for name, part in dataset.splits().items():
        np.testing.assert_array_equal(part.examples, again.splits()[name].examples)
        assert np.any(part.examples != other.splits()[name].examples)


def test_a_smaller_training_set_is_the_beginning_of_a_larger_and_leaves_the_rest(dataset):
    smaller = moving_digits.load(train=70, validation=30, test=50)
    np.testing.assert_array_equal(smaller.train.examples, dataset.train.examples[:70])
    np.testing.assert_array_equal(smaller.validation.examples, dataset.validation.examples)
    np.testing.assert_array_equal(smaller.test.examples, dataset.test.examples)


def test_no_scan_of_one_split_is_shown_in_another(monkeypatch):
    scans, _ = digits.scans()
    assert len(np.unique(scans.reshape(len(scans), -1), axis=0)) == len(scans)
    shown = []

    def render(textures, path, size):
        shown[-1].update(texture.tobytes() for texture in textures)
        return np.zeros((*path.rows.shape, size, size), np.uint8)

    split = moving_digits._split
    monkeypatch.setattr(moving_digits, "render", render)
    monkeypatch.setattr(
        moving_digits, "_split", lambda *args: [shown.append(set()), split(*args)][1]
    )
    moving_digits.load(size=16, frames=2, train=3000, validation=1500, test=3000)
    train, validation, test = shown
    assert min(map(len, shown)) > 200
    assert not train & validation and not train & test and not validation & test


def shift_between(first, second):
    """The shift (rows, columns) of a frame that wraps around, by the peak of the correlation."""
    spectrum = np.fft.fft2(second) * np.conj(np.fft.fft2(first))
    peak = np.unravel_index(np.argmax(np.fft.ifft2(spectrum).real), first.shape)
    return [(p + n // 2) % n - n // 2 for p, n in zip(peak, first.shape, strict=True)]


@pytest.mark.parametrize("motion", DIRECTIONS)
def test_digits_move_where_the_class_says_as_far_as_it_says(motion, dataset):
    clips = clips_of(dataset.train, motion)[..., 0]
    for clip in clips:
        # Between frames 5 apart the shift is a third of the clip's: 2.7 to 6.4 pixels of 32.
        shifts = np.array([shift_between(clip[t], clip[t + 5]) for t in (0, 5, 10)])
        assert np.all(np.sign(shifts) == DIRECTIONS[motion])
        length = np.linalg.norm(shifts.mean(0))
        assert motion == "still" or 2.0 < length < 7.2


@pytest.mark.parametrize("motion", ["clockwise", "counter_clockwise", "zoom"])
def test_the_other_motions_stay_in_place(motion):
    labels = np.full(50, MOTIONS.index(motion))
    path = moving_digits.paths(labels, np.random.default_rng(0).random((50, 5)), 16)
    for place in (path.rows, path.columns):
        np.testing.assert_array_equal(place, np.repeat(place[:, :1], 16, axis=1))
    turn = path.angles[:, -1] - path.angles[:, 0]
    sign = {"clockwise": 1, "counter_clockwise": -1, "zoom": 0}[motion]
    np.testing.assert_array_equal(np.sign(turn), sign)
    changed = np.ptp(path.scales, axis=1) > 0.1 * path.scales[:, 0]
    assert np.all(changed == (motion == "zoom"))


def still(row=0.5, column=0.5, angle=0.0, scale=0.5):
    return Path(*(np.full((1, 1), value) for value in (row, column, angle, scale)))


def texture():
    return np.random.default_rng(0).integers(1, 256, (1, 8, 8), dtype=np.uint8)


def test_rendering_copies_moves_turns_and_scales():
    image = texture()
    expected = np.zeros((16, 16), np.uint8)
    expected[4:12, 4:12] = image[0]
    np.testing.assert_array_equal(moving_digits.render(image, still(), 16)[0, 0], expected)
    # Three pixels down and nine right: the digit goes over the right edge and comes in at the left.
    moved = moving_digits.render(image, still(row=0.5 + 3 / 16, column=(0.5 + 9 / 16) % 1), 16)
    np.testing.assert_array_equal(moved[0, 0], np.roll(expected, (3, 9), (0, 1)))
    turned = moving_digits.render(image, still(angle=np.pi / 2), 16)
    np.testing.assert_array_equal(turned[0, 0], np.rot90(expected, -1))  # -1: clockwise
    larger = moving_digits.render(image, still(scale=1.0), 16)
    np.testing.assert_array_equal(larger[0, 0], image[0].repeat(2, 0).repeat(2, 1))


def test_a_single_frame_is_distributed_alike_in_every_class():
    count = 4000
    uniform = np.random.default_rng(0).random((count, 5))
    expected = {
        "rows": stats.uniform(0, 1),
        "columns": stats.uniform(0, 1),
        "angles": stats.uniform(0, 2 * np.pi),
        "scales": stats.loguniform(0.3, 0.7),
    }
    for label, motion in enumerate(MOTIONS):
        path = moving_digits.paths(np.full(count, label), uniform, 16)
        for name, distribution in expected.items():
            for frame in (0, 7, 15):
                values = getattr(path, name)[:, frame]
                if name == "angles":
                    values = values % (2 * np.pi)
                distance = stats.kstest(values, distribution.cdf).statistic
                assert distance < 1.95 / count**0.5, (motion, name, frame)  # p = 0.001


@pytest.mark.parametrize(
    "argument, value",
    [
        *(("size", 15), ("frames", 1), ("train", 0), ("validation", -1), ("test", 0), ("seed", -1)),
        *(("size", 10**9), ("frames", 10**9), ("train", 10**9), ("seed", 10**20)),
    ],
)
def test_arguments_too_small_or_too_large_are_refused(argument, value):
    with pytest.raises(ConfigError, match=f"{argument}: got {value}; accepted: integers from"):
        moving_digits.load(**{argument: value})
