"""One picture with its labels: reading the files, checking them, and the arrays that are stored."""

from __future__ import annotations

import dataclasses
import os
import struct
import warnings
import zlib

import numpy as np

from experiments.data import label_images
from experiments.data.digit_scenes import edge_map
from experiments.data.prepare.label_lists import Picture

PADDING = (124, 116, 104)  # ImageNet's mean color, around pictures smaller than the square
MOST_PIXELS = 1 << 26
_UNKNOWN = len(label_images.CITYSCAPES_IDS) - 1  # the id of what is stored as 255, -1
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)


class Unreadable(Exception):
    """A picture that cannot be used; the message says why."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What is stored of a picture.

    Attributes:
      dataset: "voc" or "cityscapes".
      size: height in pixels. Pictures of VOC are put on a square of this side, scaled down first
        if they are larger; pictures of Cityscapes are scaled to twice this width.
    """

    dataset: str
    size: int

    @property
    def width(self) -> int:
        return self.size if self.dataset == "voc" else 2 * self.size

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of bytes that is stored of a picture, by its name."""
        flat = (self.size, self.width)
        shapes = {"images": (*flat, 3), "labels": flat}
        return shapes if self.dataset == "voc" else shapes | {"edges": flat}


def read(picture: Picture, form: Form) -> dict[str, np.ndarray]:
    """The arrays that are stored of a picture; see `Form.shapes`.

    Raises:
      Unreadable: a file is missing or damaged, the sizes differ, or a label is none of the dataset.
    """
    from PIL import Image

    image = _open(picture.image, ("RGB", "L", "CMYK"))
    labels = _open(picture.labels, ("P", "L"))
    planes = {"labels": labels}
    if picture.instances:
        planes["instances"] = _open(picture.instances, ("I", "I;16", "I;16B", "L"))
    for name, plane in planes.items():
        if plane.size != image.size:
            raise Unreadable(
                f"{name} of {plane.size[0]} x {plane.size[1]} pixels for a picture of "
                f"{image.size[0]} x {image.size[1]}"
            )
    image = image.convert("RGB")
    if labels.mode == "P":
        labels = _by_color(labels, form.dataset)
    _check_labels(np.asarray(labels), form.dataset)
    if form.dataset == "voc":
        return _on_a_square(image, labels, form.size)
    size = (form.width, form.size)
    ids = np.array(labels.resize(size, Image.Resampling.NEAREST), np.uint8)
    ids[ids == label_images.VOID] = _UNKNOWN
    instances = np.asarray(planes["instances"].resize(size, Image.Resampling.NEAREST))
    trained = np.full(256, label_images.VOID, np.uint8)
    trained[list(label_images.CITYSCAPES_TRAINED)] = range(len(label_images.CITYSCAPES_TRAINED))
    edges = len(label_images.CITYSCAPES_IDS) * edge_map(instances).astype(np.uint8)
    return {
        "images": np.asarray(image.resize(size, Image.Resampling.BICUBIC)),
        "labels": trained[ids],
        "edges": ids + edges,
    }


def _by_color(labels, dataset: str):
    """Labels as a gray picture, from one with a palette.

    Programs that save a picture again give its colors other numbers, so the colors say what the
    labels are: those of Pascal VOC, or the gray of the label itself.
    """
    from PIL import Image

    numbers = np.asarray(labels)
    used = np.unique(numbers).tolist()
    palette = np.array(labels.getpalette("RGB")).reshape(-1, 3).tolist()
    colors = [tuple(palette[number]) if number < len(palette) else () for number in used]
    accepted = [{(gray,) * 3: gray for gray in range(256)}]
    if dataset == "voc":
        known = [tuple(color) for color in label_images.voc_palette().tolist()]
        if colors == [known[number] for number in used]:
            return Image.fromarray(numbers)
        of_voc = (*range(len(label_images.VOC_CLASSES)), label_images.VOID)
        accepted.insert(0, {known[label]: label for label in of_voc})
    for meaning in accepted:
        if len(set(colors) & set(meaning)) == len(colors):
            table = np.zeros(256, np.uint8)
            table[used] = [meaning[color] for color in colors]
            return Image.fromarray(table[numbers])
    strange = [color for color in colors if color not in accepted[0]]
    found = f"the color {strange[0]}" if strange else "one color for several labels"
    colored = "colors that are all Pascal VOC's" if dataset == "voc" else "gray, the ids"
    raise Unreadable(f"labels with {found}, instead of {colored}")


def _on_a_square(image, labels, size: int) -> dict[str, np.ndarray]:
    from PIL import Image

    scale = min(1.0, size / max(image.size))
    width, height = (max(1, round(scale * side)) for side in image.size)
    if scale < 1:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        labels = labels.resize((width, height), Image.Resampling.NEAREST)
    top, left = (size - height) // 2, (size - width) // 2
    place = np.s_[top : top + height, left : left + width]
    square = np.full((size, size, 3), PADDING, np.uint8)
    square[place] = np.asarray(image)
    truth = np.full((size, size), label_images.VOID, np.uint8)
    truth[place] = np.asarray(labels)
    return {"images": square, "labels": truth}


def _open(path: str, modes: tuple[str, ...]):
    """A decoded picture in one of these modes of Pillow."""
    from PIL import Image

    name = os.path.basename(path)
    if not os.path.isfile(path):
        raise Unreadable(f"{name} is missing")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of damaged metadata, and of many pixels, see below.
            image = Image.open(path)
        with image:
            if image.size[0] * image.size[1] > MOST_PIXELS:
                raise Unreadable(f"{name} has {image.size[0]} x {image.size[1]} pixels")
            if image.mode not in modes:
                accepted = " or ".join(modes)
                raise Unreadable(f"{name} has the mode {image.mode} instead of {accepted}")
            image.load()
            return image.copy()
    except (*_DAMAGED, Image.DecompressionBombError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Unreadable(f"{name} cannot be decoded ({said[:100]})") from error


def _check_labels(labels: np.ndarray, dataset: str) -> None:
    kind = label_images.KINDS[dataset]
    last = len(kind.class_names) - 1 if dataset == "voc" else _UNKNOWN - 1
    counts = np.bincount(labels.ravel(), minlength=256)
    counts[: last + 1] = counts[label_images.VOID] = 0
    strays = np.flatnonzero(counts)
    if len(strays):
        raise Unreadable(
            f"label {strays[0]} in {counts[strays[0]]} pixels, instead of 0 to {last} or "
            f"{label_images.VOID}"
        )
