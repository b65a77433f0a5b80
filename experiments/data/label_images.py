"""Pascal VOC and Cityscapes, pictures with a label for every pixel, as `prepare_data` stored them.

The folder of a dataset holds for each split one array of pictures and one of labels, which are
mapped into memory and never loaded whole; manifest.json describes them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.data import store
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split

MANIFEST = "manifest.json"
SPLITS = ("train", "test")
VOID = 255
_SMALL = 1 << 20  # bytes: of larger files only the size is compared when they are loaded

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
# The ids of labelIds.png; license plates have no id of their own there.
CITYSCAPES_IDS = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic"),
    *("ground", "road", "sidewalk", "parking", "rail track", "building", "wall", "fence"),
    *("guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan"),
    *("trailer", "train", "motorcycle", "bicycle", "license plate"),
)
# The ids that count in the benchmark, in the order of their training ids.
CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One dataset of pictures and labels.

    Attributes:
      folder: its folder under the data directory.
      class_names: the classes of its labels.
      edge_names: the classes of its labels with edges; () if it has none.
    """

    folder: str
    class_names: tuple[str, ...]
    edge_names: tuple[str, ...] = ()


KINDS = {
    "voc": Kind("voc2012_segmentation", VOC_CLASSES),
    "cityscapes": Kind(
        "cityscapes_fine",
        tuple(CITYSCAPES_IDS[index] for index in CITYSCAPES_TRAINED),
        CITYSCAPES_IDS + tuple(f"{name}, edge" for name in CITYSCAPES_IDS),
    ),
}
NAMES = tuple(KINDS)


def voc_palette() -> np.ndarray:
    """The colors of Pascal VOC's pictures of labels, uint8 (256, 3).

    The bits of a label go, from the lowest on, to the highest bits of red, green and blue in turn.

    Example:
      >>> voc_palette()[[0, 1, 15, 255]].tolist()
      [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]]
    """
    labels = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            here = (labels >> (3 * bit + channel)) & 1
            colors[:, channel] |= (here << (7 - bit)).astype(np.uint8)
    return colors


def place(name: str, data_dir: str) -> pathlib.Path:
    """The folder of a dataset, prepared or not."""
    return store.root(data_dir) / KINDS[name].folder


def is_prepared(name: str, data_dir: str) -> bool:
    """Whether a dataset is under data_dir, intact or not."""
    return place(name, data_dir).exists()


def manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The contents of manifest.json in an intact folder."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def load(
    name: str,
    data_dir: str,
    command: str,
    edges: bool = False,
    notice: Callable[[str], None] = print,
) -> Dataset:
    """Loads prepared pictures; their arrays stay on the disk.

    The test split is the official validation set: the labels of the official test set are not
    public. There is no validation split.

    Args:
      name: "voc" or "cityscapes".
      data_dir: where it was prepared.
      command: the command line that prepares it, for the error.
      edges: cityscapes only, for label-to-image. By default its labels are the 19 training ids;
        with edges they are the 35 ids, and id + 35 marks a pixel at the border of an instance.
      notice: is called with one line if pictures were skipped when the dataset was prepared.

    Returns:
      The dataset; examples and labels are `np.memmap`s.

    Raises:
      DatasetNotPrepared: it is not there, or a file of it is missing or damaged.
    """
    kind, folder = KINDS[name], place(name, data_dir)
    if not folder.exists():
        raise DatasetNotPrepared(
            f"dataset: {name} is not prepared under {data_dir}; prepare it with: {command}"
        )
    # Reading gigabytes to compare their SHA-256 is left to `prepare_data`.
    damaged = store.damage(folder, contents_up_to=_SMALL)
    if damaged is not None:
        raise _damaged(name, folder, damaged, command)
    described = manifest(folder)
    skipped = len(described["skipped"])
    if skipped:
        pictures = skipped + sum(len(found) for found in described["pictures"].values())
        notice(
            f"dataset: {skipped} of {pictures} pictures were skipped when {name} was prepared "
            f"({folder / MANIFEST} says why)"
        )
    labels = "edges" if edges else "labels"
    try:
        splits = {split: _split(folder, split, labels) for split in SPLITS}
    except (OSError, ValueError) as error:
        raise _damaged(name, folder, str(error), command) from error
    return Dataset(
        name=name,
        **splits,
        class_names=kind.edge_names if edges else kind.class_names,
        provenance=f"{described['provenance']} ({folder})",
        ignore_label=None if edges else VOID,
        data_dir=str(store.root(data_dir)),
    )


def _split(folder: pathlib.Path, split: str, labels: str) -> Split:
    files = (f"{split}_images.npy", f"{split}_{labels}.npy")
    examples, targets = (np.load(folder / file, mmap_mode="r") for file in files)
    digest = hashlib.sha256(f"{store.digest(folder, files)}".encode()).hexdigest()
    return Split(examples, targets, digest)


def _damaged(name: str, folder: pathlib.Path, damaged: str, command: str) -> DatasetNotPrepared:
    return DatasetNotPrepared(
        f"dataset: {name} under {folder} is damaged: {damaged}; repair it with: {command}"
    )
