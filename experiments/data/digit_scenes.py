"""`digit_scenes`: scanned digits on pieces of photographs, with a label for every pixel.

One to four of scikit-learn's scanned digits are turned, scaled and pasted on a square piece of one
of scikit-learn's two photographs. Label 0 is the background and label d + 1 the digit d. A rim of
one pixel around each digit is not labelled (255), as in Pascal VOC. Train, validation and test show
different scans and different columns of the photographs.

Photographs: china.jpg by danielbuechele, flower.jpg by vultilion, both CC BY 2.0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from experiments.data import digits
from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError

CLASS_NAMES = ("background", *"0123456789")
VOID = 255
PHOTOS = ("china.jpg", "flower.jpg")
SPLITS = ("train", "validation", "test")
_SHARES = (0.6, 0.15, 0.25)  # of the scans
_COLUMNS = (0.0, 0.5, 0.7, 1.0)  # where the columns of the splits begin and end, in photo widths
_CROP = (64, 128)  # pixels of a photograph, the side of the piece that is shown
_WIDTH = (0.3, 0.55)  # of a digit, in widths of the scene
_TURN = np.pi / 6  # a digit is turned by at most this angle; 6 and 9 stay apart
_SHIFT = 0.08  # a digit's centre is at most this far from the centre of its quarter
_QUARTERS = ((0.27, 0.27), (0.27, 0.73), (0.73, 0.27), (0.73, 0.73))
_INK = 0.5  # a pixel with more ink belongs to the digit
_MARGIN = 2  # pixels of paper around a scan, so that what is interpolated ends in zeros
_RANGES = {
    "size": (32, 512),
    "train": (1, 10**5),
    "validation": (0, 10**5),
    "test": (1, 10**5),
    "seed": (0, 2**63),
}


@dataclasses.dataclass(frozen=True)
class Digit:
    """One digit of a scene.

    Attributes:
      scan: index of the scan among `digits.scans()`.
      row, column: its centre, in widths of the scene.
      width: of the scan's 8 pixels, in widths of the scene.
      angle: radians, clockwise as seen.
      color: (3,), 0 to 1; light or dark, against the brightness of what is behind.
    """

    scan: int
    row: float
    column: float
    width: float
    angle: float
    color: np.ndarray


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is drawn: a square of a photograph, in its pixels, and the digits on it.

    A later digit covers an earlier one.
    """

    photo: int
    top: int
    left: int
    side: int
    digits: tuple[Digit, ...]


def load(
    size: int = 64,
    train: int = 2000,
    validation: int = 200,
    test: int = 400,
    seed: int = 0,
    edges: bool = False,
) -> Dataset:
    """Draws the scenes; the same arguments give the same scenes.

    The scenes of one split do not depend on the number of scenes in another, and a smaller split is
    the beginning of a larger one.

    Args:
      size: height and width in pixels, 32 to 512.
      train, validation, test: the number of scenes, up to 100,000.
      seed: seed of everything that is drawn, also of the split of the scans.
      edges: for label-to-image. The labels then have no rim of 255, and label + 11 marks a pixel
        at the border of an instance (label % 11 is the class, label // 11 the edge map).

    Returns:
      The dataset: images uint8 (N, size, size, 3), labels uint8 (N, size, size).

    Raises:
      ConfigError: an argument is too small or too large.

    Example:
      >>> dataset = load(size=32, train=4, validation=0, test=2)
      >>> dataset.train.examples.shape, dataset.train.labels.shape, dataset.num_classes
      ((4, 32, 32, 3), (4, 32, 32), 11)
    """
    counts = {"train": train, "validation": validation, "test": test}
    for name, value in {"size": size, "seed": seed, **counts}.items():
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise ConfigError(name, value, f"integers from {least} to {most}")
    names = CLASS_NAMES + tuple(f"{name}, edge" for name in CLASS_NAMES) * edges
    return Dataset(
        name="digit_scenes",
        **{name: _split(name, count, size, seed, edges) for name, count in counts.items()},
        class_names=names,
        provenance=(
            "scikit-learn's scanned digits (UCI) on pieces of its photographs china.jpg "
            "(danielbuechele) and flower.jpg (vultilion), CC BY 2.0, drawn with seed "
            f"{seed}; train, validation and test show different scans and parts of the photographs"
        ),
        mirror_symmetric=False,
        ignore_label=None if edges else VOID,
    )


def pool(split: str, seed: int) -> np.ndarray:
    """The scans that a split shows, as indices into `digits.scans()`; every scan is in one pool.

    Example:
      >>> [len(pool(split, seed=0)) for split in SPLITS]
      [1078, 270, 449]
    """
    count = len(_scans()[1])
    order = np.random.default_rng([seed, 0]).permutation(count)
    ends = np.rint(np.cumsum(_SHARES) * count).astype(int)
    return np.split(order, ends[:-1])[SPLITS.index(split)]


def columns(split: str, width: int) -> tuple[int, int]:
    """The first column of a photograph that a split may show, and the one after its last.

    Example:
      >>> [columns(split, width=640) for split in SPLITS]
      [(0, 320), (320, 448), (448, 640)]
    """
    index = SPLITS.index(split)
    return round(_COLUMNS[index] * width), round(_COLUMNS[index + 1] * width)


def scenes(split: str, count: int, seed: int) -> Iterator[Scene]:
    """The scenes of a split, one after the other."""
    scans, pictures = pool(split, seed), photos()
    for index in range(count):
        # A generator for each scene: what one draws does not move the next.
        rng = np.random.default_rng([seed, 1 + SPLITS.index(split), index])
        yield _scene(rng, split, scans, pictures)


def draw(scene: Scene, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One scene as pixels.

    Args:
      scene: what is drawn.
      size: height and width in pixels.

    Returns:
      The image, uint8 (size, size, 3); the labels with the rims, uint8 (size, size); and the
      instances, uint8 (size, size): 0 for the background, k for the k-th digit.
    """
    from PIL import Image

    picture = photos()[scene.photo]
    # Cut before it is scaled: no pixel outside of the piece has an influence.
    piece = picture[scene.top : scene.top + scene.side, scene.left : scene.left + scene.side]
    scaled = Image.fromarray(piece).resize((size, size), Image.Resampling.BILINEAR)
    image = np.asarray(scaled, np.float32) / 255
    labels = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    classes = _scans()[1]
    for number, digit in enumerate(scene.digits, start=1):
        place = _place(digit, size)
        ink = _ink(digit, size, place)
        image[place] += ink[..., None] * (digit.color - image[place])
        inside = ink > _INK
        labels[place][_dilated(inside)] = VOID
        labels[place][inside] = classes[digit.scan] + 1
        instances[place][inside] = number
    return np.rint(255 * image).astype(np.uint8), labels, instances


def edge_map(instances: np.ndarray) -> np.ndarray:
    """Where a pixel and one of its four neighbours belong to different instances, bool (..., H, W).

    Example:
      >>> edge_map(np.array([[0, 0, 1, 1]])).tolist()
      [[False, True, True, False]]
    """
    edges = np.zeros(instances.shape, bool)
    for one, other in (
        (np.s_[..., 1:, :], np.s_[..., :-1, :]),
        (np.s_[..., 1:], np.s_[..., :-1]),
    ):
        differs = instances[one] != instances[other]
        edges[one] |= differs
        edges[other] |= differs
    return edges


@functools.cache
def photos() -> tuple[np.ndarray, ...]:
    """The two photographs, uint8 (427, 640, 3)."""
    from sklearn.datasets import load_sample_image

    return tuple(np.asarray(load_sample_image(name)) for name in PHOTOS)


def _split(name: str, count: int, size: int, seed: int, edges: bool) -> Split:
    images = np.empty((count, size, size, 3), np.uint8)
    labels = np.empty((count, size, size), np.uint8)
    for index, scene in enumerate(scenes(name, count, seed)):
        images[index], labels[index], instances = draw(scene, size)
        if edges:
            classes = _scans()[1][[digit.scan for digit in scene.digits]] + 1
            of_instance = np.concatenate([[0], classes]).astype(np.uint8)
            edge = edge_map(instances).astype(np.uint8)
            labels[index] = of_instance[instances] + len(CLASS_NAMES) * edge
    return Split(images, labels)


def _scene(rng, split, scans, pictures) -> Scene:
    photo = int(rng.integers(len(pictures)))
    height, width, _ = pictures[photo].shape
    first, end = columns(split, width)
    side = int(rng.integers(_CROP[0], _CROP[1] + 1))
    top, left = int(rng.integers(height - side + 1)), int(rng.integers(first, end - side + 1))
    piece = pictures[photo][top : top + side, left : left + side]
    quarters = rng.permutation(len(_QUARTERS))[: rng.integers(1, len(_QUARTERS) + 1)]
    low, high = np.log(_WIDTH)
    found = []
    for quarter in quarters:
        row, column = _QUARTERS[quarter] + rng.uniform(-_SHIFT, _SHIFT, 2)
        width = float(np.exp(rng.uniform(low, high)))
        top_left = np.maximum(0, np.array([row, column]) - width / 2)
        place = tuple(slice(int(s * side), int((s + width) * side) + 1) for s in top_left)
        behind = piece[place].mean() / 255
        # As far from the brightness behind it as it takes to be seen.
        color = rng.uniform(0.0, 0.3, 3) + (0.7 if behind < 0.5 else 0.0)
        found.append(
            Digit(
                scan=int(rng.choice(scans)),
                row=float(row),
                column=float(column),
                width=width,
                angle=float(rng.uniform(-_TURN, _TURN)),
                color=color.astype(np.float32),
            )
        )
    return Scene(photo, top, left, side, tuple(found))


def _place(digit: Digit, size: int) -> tuple[slice, slice]:
    """The rows and columns of a scene outside of which the digit and its rim leave no trace."""
    reach = np.sqrt(0.5) * digit.width * (8 + 2 * _MARGIN) / 8
    limits = [(size * (at - reach), size * (at + reach)) for at in (digit.row, digit.column)]
    rows, columns = (slice(max(0, int(a) - 1), int(b) + 3) for a, b in limits)
    return rows, columns


def _ink(digit: Digit, size: int, place: tuple[slice, slice]) -> np.ndarray:
    """How much of each pixel of a place in the scene the digit covers, float32 in [0, 1]."""
    from scipy import ndimage

    paper = _papers()[digit.scan]
    pixel = (np.arange(size) + 0.5) / size
    down, right = pixel[place[0], None] - digit.row, pixel[None, place[1]] - digit.column
    cosine, sine = np.cos(digit.angle), np.sin(digit.angle)
    # The place in the scan that a pixel shows: its offset, turned back by the angle.
    scale, centre = 8 / digit.width, len(paper) / 2 - 0.5
    row = scale * (cosine * down - sine * right) + centre
    column = scale * (sine * down + cosine * right) + centre
    ink = ndimage.map_coordinates(paper, [row, column], order=3, prefilter=False, cval=0.0)
    return np.clip(ink, 0.0, 1.0).astype(np.float32)


@functools.cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    return digits.scans()


@functools.cache
def _papers() -> np.ndarray:
    """The coefficients of a cubic spline through each scan, with paper around it."""
    from scipy import ndimage

    around = ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN))
    padded = np.pad(_scans()[0].astype(np.float64), around)
    return np.stack([ndimage.spline_filter(scan, order=3) for scan in padded])


def _dilated(mask: np.ndarray) -> np.ndarray:
    """The mask and every pixel that touches it, also by a corner."""
    from scipy import ndimage

    return ndimage.binary_dilation(mask, np.ones((3, 3), bool))
