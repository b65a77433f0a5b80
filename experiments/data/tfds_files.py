"""Datasets in TFDS's format on the disk: finding and reading them without TensorFlow.

Two layouts are found under a data directory: NAME/VERSION, which TFDS's official builders make, and
NAME_mirror/VERSION, which `prepare_data` makes from a package registry.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from experiments.data import store, tfrecord
from experiments.data.dataset import Split

FORMATS = ("array_record", "tfrecord")
_BATCH = 1024


class Unusable(ValueError):
    """A folder that cannot be read: damaged, or in a file format that is not supported."""


def mirror(name: str) -> str:
    """The name under which a dataset from a package registry is stored."""
    return f"{name}_mirror"


def find(name: str, data_dir: str) -> list[pathlib.Path]:
    """The folders of a prepared dataset: the official builder's first, then the mirror's.

    Each is the newest version of its kind. Whether they can be read is not looked at.
    """
    root, found = store.root(data_dir), []
    for folder in (root / name, root / mirror(name)):
        versions = [path.parent for path in folder.glob("*/dataset_info.json")]
        versions = [path for path in versions if _version(path.name)]
        if versions:
            found.append(max(versions, key=lambda path: _version(path.name)))
    return found


def read(folder: pathlib.Path) -> tuple[dict[str, Split], tuple[str, ...], str]:
    """Reads the splits of a dataset of images with labels, without importing TensorFlow.

    Args:
      folder: NAME/VERSION, in the file formats array_record or tfrecord. Where the folder holds
        checksums.json, every file is compared with it first.

    Returns:
      The splits by name, in the order of the examples' "id" where they have one and as stored
      otherwise; the names of the classes; and TFDS's description.

    Raises:
      Unusable: says what is wrong: a file is missing, truncated or changed, or the file format is
        not supported.
    """
    file_format = _file_format(folder)
    if file_format not in FORMATS:
        raise Unusable(
            f"its file format {file_format} is not supported; accepted: {' and '.join(FORMATS)}"
        )
    if (folder / store.CHECKSUMS).exists() or folder.parent.name.endswith(mirror("")):
        damaged = store.damage(folder)
        if damaged is not None:
            raise Unusable(f"it is damaged: {damaged}")
    try:
        import tensorflow_datasets as tfds

        with quiet():
            builder = tfds.builder_from_directory(folder)
            info = builder.info
            if not {"train", "test"} <= set(info.splits):
                raise ValueError(f"it has the splits {', '.join(info.splits)} only")
            splits = {name: _read_split(folder, builder, name) for name in info.splits}
            return splits, tuple(info.features["label"].names), info.description
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # A damaged file makes the readers raise errors of many types.
        reason = (str(error).strip().splitlines() or [""])[0][:200]
        raise Unusable(f"it is damaged: {type(error).__name__}: {reason}") from error


def _file_format(folder: pathlib.Path) -> str:
    try:
        info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
        return info.get("fileFormat", "tfrecord")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise Unusable("it is damaged: dataset_info.json is unreadable") from error


def _read_split(folder: pathlib.Path, builder, name: str) -> Split:
    info, features = builder.info, builder.info.features
    count = info.splits[name].num_examples
    images = np.empty((count, *features["image"].shape), np.uint8)
    labels = np.empty(count, np.int32)
    ids = []
    index = 0
    for record in _records(builder, name):
        example = features.deserialize_example_np(record)
        if index < count:
            images[index], labels[index] = example["image"], example["label"]
        ids.append(example.get("id", b""))
        index += 1
    if index != count:
        raise ValueError(f"{name}: {index} examples on the disk instead of {count}")
    if any(ids):
        order = np.argsort(ids, kind="stable")
        images, labels = images[order], labels[order]
    return Split(images, labels, store.digest(folder, (f"*-{name}.*",)))


def _records(builder, name: str) -> Iterator[bytes]:
    """The serialized examples of a split, in the stored order."""
    if builder.info.file_format.value == "tfrecord":
        for path in builder.info.splits[name].filepaths:
            yield from tfrecord.records(path)
        return
    source = builder.as_data_source(split=name).data_source
    for start in range(0, len(source), _BATCH):
        yield from source.__getitems__(range(start, min(start + _BATCH, len(source))))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS's own messages and bars, which name the staging folder."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")  # TFDS logs to it
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with open(os.devnull, "w", encoding="utf-8") as sink, contextlib.redirect_stdout(sink):
            yield
    finally:
        logger.setLevel(level)


def _version(text: str) -> tuple[int, ...] | None:
    """(1, 2, 3) of "1.2.3"; None of another name, such as that of an incomplete version."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", text) else None
