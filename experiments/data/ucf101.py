"""UCF-101 as clips of 16 frames of 112x112 pixels: loading what `prepare_data` stored.

The folder DATA_DIR/ucf101_clips holds, for each split, the clips as one array that is mapped into
memory and never loaded whole, their labels, and manifest.json, which says what they are.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np

from experiments.data import store
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split

FOLDER = "ucf101_clips"
SPLITS = ("train", "validation", "test")


def place(data_dir: str) -> pathlib.Path:
    """Where the clips are, prepared or not."""
    return pathlib.Path(data_dir).expanduser() / FOLDER


def is_prepared(data_dir: str) -> bool:
    """Whether the clips are under data_dir, intact or not."""
    return place(data_dir).exists()


def load(data_dir: str, command: str, classes: int | None = None) -> Dataset:
    """The prepared clips, left on the disk.

    Args:
      data_dir: where they were prepared.
      command: the command line that prepares them, for the error's text.
      classes: the first so many of the classes, at least 2; all that were prepared by default.

    Returns:
      The dataset; its examples are `np.memmap`s.

    Raises:
      DatasetNotPrepared: it is not there, a file of it is missing or truncated, or it was prepared
        with fewer classes.
    """
    folder = place(data_dir)
    if not folder.exists():
        raise DatasetNotPrepared(
            f"dataset: ucf101 is not prepared under {data_dir}; prepare it with: {command}"
        )
    # The sizes alone: reading tens of gigabytes to compare checksums is for `prepare_data`.
    damaged = store.damage(folder, contents=False)
    if damaged is not None:
        raise DatasetNotPrepared(
            f"dataset: ucf101 under {folder} is damaged: {damaged}; repair it with: {command}"
        )
    manifest = json.loads((folder / "manifest.json").read_text())
    prepared = len(manifest["class_names"])
    count = prepared if classes is None else classes
    if count < 2:
        raise ValueError(f"classes: got {count}; accepted are 2 to {prepared}")
    if count > prepared:
        raise DatasetNotPrepared(
            f"dataset: ucf101 under {folder} has {prepared} classes, not {count}; prepare more "
            f"with: {command} --classes={count}"
        )
    return Dataset(
        name="ucf101",
        **{name: _split(folder, name, count) for name in SPLITS},
        class_names=tuple(manifest["class_names"][:count]),
        provenance=f"{manifest['provenance']} ({folder})",
    )


def _split(folder: pathlib.Path, name: str, classes: int) -> Split:
    labels = np.load(folder / f"{name}_labels.npy")
    examples = np.load(folder / f"{name}.npy", mmap_mode="r" if len(labels) else None)
    end = np.searchsorted(labels, classes)  # the clips are stored class by class
    return Split(examples[:end], labels[:end])
