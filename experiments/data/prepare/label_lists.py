"""Which pictures Pascal VOC and Cityscapes have, and where their labels are.

Everingham et al., "The Pascal Visual Object Classes challenge 2012"; Hariharan et al., "Semantic
contours from inverse detectors" (2011), whose labels SegmentationClassAug holds; Cordts et al.,
"The Cityscapes dataset for semantic urban scene understanding" (2016).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from experiments.data import store
from experiments.system.errors import ConfigError, UserError

ACCEPTED = {
    "voc": (
        "a folder VOCdevkit with VOC2012/JPEGImages, VOC2012/SegmentationClass and "
        "VOC2012/ImageSets/Segmentation as they come"
    ),
    "cityscapes": (
        "a folder with leftImg8bit/{train,val} and gtFine/{train,val} as they come, or with at "
        "least one city in each"
    ),
}
_IMAGE, _IDS, _INSTANCES = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_instanceIds.png"


@dataclasses.dataclass(frozen=True)
class Picture:
    """One picture with its labels.

    Attributes:
      name: unique in the dataset.
      image: its file.
      labels: the file of its labels.
      instances: the file of its instances, or "" where the dataset has none.
    """

    name: str
    image: str
    labels: str
    instances: str = ""

    def files(self) -> list[str]:
        return [path for path in (self.image, self.labels, self.instances) if path]

    def stamp(self) -> list[list[int]]:
        """Size and time of each file: what tells that one was replaced.

        Raises:
          OSError: a file is missing.
        """
        found = [pathlib.Path(path).stat() for path in self.files()]
        return [[status.st_size, status.st_mtime_ns] for status in found]


def pictures(name: str, source: str) -> dict[str, list[Picture]]:
    """The pictures of "train" and "test" in the order of their names.

    Args:
      name: "voc" or "cityscapes".
      source: the folder of the official files.

    Raises:
      UserError: the folder or a list is not there or does not have the official form.
    """
    root = store.expanded("source", source)
    return _voc(source, root) if name == "voc" else _cityscapes(source, root)


def _voc(source: str, root: pathlib.Path) -> dict[str, list[Picture]]:
    """The official lists; for training also what SegmentationClassAug has, where it is there."""
    root = root / "VOC2012" if (root / "VOC2012").is_dir() else root
    folders = [root / name for name in ("JPEGImages", "SegmentationClass", "ImageSets")]
    _require(folders, "voc", source)
    lists = root / "ImageSets" / "Segmentation"
    train, test = (_names(lists / f"{name}.txt") for name in ("train", "val"))
    both = sorted(set(train) & set(test))
    if both:
        raise UserError(
            f"{lists}: got {both[0]} in train.txt and in val.txt; accepted: the official lists, "
            "which share no picture"
        )
    more = root / "SegmentationClassAug"
    augmented = {path.stem for path in _visible(more.glob("*.png"))} - set(test)
    for name in sorted(augmented):
        if not _is_name(name):
            got = f"{source}, where {more} has {f'{name}.png'!r}"
            raise ConfigError("source", got, "labels there that are named as their pictures")

    def picture(name: str, labels: str) -> Picture:
        image = root / "JPEGImages" / f"{name}.jpg"
        return Picture(name, str(image), str(root / labels / f"{name}.png"))

    return {
        "train": [
            picture(name, more.name if name in augmented else "SegmentationClass")
            for name in sorted(set(train) | augmented)
        ],
        "test": [picture(name, "SegmentationClass") for name in sorted(test)],
    }


def _cityscapes(source: str, root: pathlib.Path) -> dict[str, list[Picture]]:
    """Everything that has a picture, labels or instances; what is missing is told later."""
    images, truth = root / "leftImg8bit", root / "gtFine"
    found = {}
    for split, folder in (("train", "train"), ("test", "val")):
        _require([images / folder, truth / folder], "cityscapes", source)
        names = {
            f"{path.parent.name}/{path.name.removesuffix(ending)}"
            for place, ending in ((images, _IMAGE), (truth, _IDS), (truth, _INSTANCES))
            for path in _visible((place / folder).glob(f"*/*{ending}"))
        }
        if not names:
            got = f"{source} (no picture in {images / folder})"
            raise ConfigError("source", got, ACCEPTED["cityscapes"])
        found[split] = [
            Picture(
                f"{folder}/{name}",
                str(images / folder / f"{name}{_IMAGE}"),
                str(truth / folder / f"{name}{_IDS}"),
                str(truth / folder / f"{name}{_INSTANCES}"),
            )
            for name in sorted(names)
        ]
    return found


def _require(folders: list[pathlib.Path], name: str, source: str) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError("source", f"{source} ({folder} is not a folder)", ACCEPTED[name])


def _visible(paths: Iterable[pathlib.Path]) -> Iterator[pathlib.Path]:
    """Leaves hidden files out: macOS writes ._NAME beside each file that it copies."""
    return (path for path in paths if not path.name.startswith("."))


def _is_name(text: str) -> bool:
    return all(letter.isalnum() or letter in "_-" for letter in text)


def _names(path: pathlib.Path) -> list[str]:
    """The names in a list of Pascal VOC, one in each line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read: {error}") from error
    names = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        if not _is_name(name):
            raise UserError(f"{path}, line {number}: got {name!r}; accepted: the name of a picture")
        if name in names[-1:] or name in set(names):
            raise UserError(f"{path}, line {number}: got {name} again; accepted: each picture once")
        names.append(name)
    if not names:
        raise UserError(f"the list {path} is empty")
    return names
