"""UCF-101 as clips of 16 frames of 112x112 pixels, as `prepare_data` stored them.

The folder DATA_DIR/ucf101_clips holds, for each split, one array of clips, which is mapped into
memory and never loaded whole, and their labels; manifest.json describes them.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.data import store
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split
from experiments.system.errors import ConfigError

FOLDER = "ucf101_clips"
MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
_SMALL = 1 << 24  # bytes: all files but the clips are smaller


def place(data_dir: str) -> pathlib.Path:
    """The folder of the clips, prepared or not."""
    return store.root(data_dir) / FOLDER


def is_prepared(data_dir: str) -> bool:
    """Whether the clips are under data_dir, intact or not."""
    return place(data_dir).exists()


def manifest(folder: pathlib.Path) -> dict[str, Any]:
    """The contents of manifest.json in an intact folder."""
    return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))


def load(
    data_dir: str,
    command: str,
    classes: int | None = None,
    notice: Callable[[str], None] = print,
) -> Dataset:
    """Loads the prepared clips; their arrays stay on the disk.

    Args:
      data_dir: where they were prepared.
      command: the command line that prepares them, for the error.
      classes: takes the first classes only, at least 2; by default all that were prepared.
      notice: is called with one line if videos were skipped when the clips were prepared.

    Returns:
      The dataset; its examples are `np.memmap`s.

    Raises:
      DatasetNotPrepared: it is not there, a file of it is missing or damaged, or it was prepared
        with fewer classes.
      ConfigError: fewer than 2 classes.
    """
    folder = place(data_dir)
    if not folder.exists():
        raise DatasetNotPrepared(
            f"dataset: ucf101 is not prepared under {data_dir}; prepare it with: {command}"
        )
    # Reading tens of gigabytes of clips to compare their SHA-256 is left to `prepare_data`.
    damaged = store.damage(folder, contents_up_to=_SMALL)
    if damaged is not None:
        raise _damaged(folder, damaged, command)
    described = manifest(folder)
    prepared = len(described["class_names"])
    count = prepared if classes is None else classes
    if count < 2:
        raise ConfigError("classes", count, f"2 to {prepared}")
    if count > prepared:
        raise DatasetNotPrepared(
            f"dataset: ucf101 under {folder} has {prepared} classes, not {count}; prepare more "
            f"with: {command} --classes={count}"
        )
    skipped = len(described["skipped"])
    if skipped:
        videos = skipped + sum(len(found) for found in described["videos"].values())
        notice(
            f"dataset: {skipped} of {videos} listed videos were skipped when ucf101 was prepared "
            f"({folder / MANIFEST} says why)"
        )
    try:
        splits = {name: _split(folder, name, count) for name in SPLITS}
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error), command) from error
    return Dataset(
        name="ucf101",
        **splits,
        class_names=tuple(described["class_names"][:count]),
        provenance=f"{described['provenance']} ({folder})",
        data_dir=str(store.root(data_dir)),
    )


def _split(folder: pathlib.Path, name: str, classes: int) -> Split:
    labels = np.load(folder / f"{name}_labels.npy")
    examples = np.load(folder / f"{name}.npy", mmap_mode="r" if len(labels) else None)
    end = np.searchsorted(labels, classes)  # the clips are stored class by class
    files = store.digest(folder, (f"{name}.npy", f"{name}_labels.npy"))
    digest = hashlib.sha256(f"{files} classes {classes}".encode()).hexdigest()
    return Split(examples[:end], labels[:end], digest)


def _damaged(folder: pathlib.Path, damaged: str, command: str) -> DatasetNotPrepared:
    return DatasetNotPrepared(
        f"dataset: ucf101 under {folder} is damaged: {damaged}; repair it with: {command}"
    )
