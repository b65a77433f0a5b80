"""Datasets in TFDS's format on the disk: finding, reading and writing them without TensorFlow.

Two layouts are found under a data directory: NAME/VERSION, what TFDS's official builders make, and
NAME_mirror/VERSION, what `prepare_data` makes from a package registry.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import re
import struct
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from absl import logging

from experiments.data import store
from experiments.data.dataset import Split
from experiments.system.progress import progress

_BATCH = 1024


def mirror(name: str) -> str:
    """The name under which a dataset from a package registry is stored."""
    return f"{name}_mirror"


def find(name: str, data_dir: str) -> pathlib.Path | None:
    """The folder of a prepared dataset: the official builder's, else the mirror's, else None."""
    root = pathlib.Path(data_dir).expanduser()
    for folder in (root / name, root / mirror(name)):
        versions = [path.parent for path in folder.glob("*/dataset_info.json")]
        versions = [path for path in versions if _version(path.name)]
        if versions:
            return max(versions, key=lambda path: _version(path.name))
    return None


def damage(folder: pathlib.Path) -> str | None:
    """What is wrong with a folder that `find` returned, or None.

    A folder that TFDS itself prepared carries no checksums of its own; what is wrong with it shows
    when it is read.
    """
    if (folder / store.CHECKSUMS).exists() or folder.parent.name.endswith(mirror("")):
        return store.damage(folder)
    return None


def read(folder: pathlib.Path) -> tuple[dict[str, Split], tuple[str, ...], str]:
    """Reads the splits of a dataset of images with labels, without importing TensorFlow.

    Args:
      folder: NAME/VERSION, in the file formats array_record or tfrecord.

    Returns:
      The splits by name, in the order of the examples' "id" where they have one and as stored
      otherwise; the names of the classes; and TFDS's description.

    Raises:
      ValueError: a file is missing, truncated or not what the folder's metadata says.
    """
    import tensorflow_datasets as tfds

    with quiet():
        builder = tfds.builder_from_directory(folder)
        info = builder.info
        splits = {name: _read_split(builder, name) for name in info.splits}
    return splits, tuple(info.features["label"].names), info.description


def _read_split(builder, name: str) -> Split:
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
    return Split(images, labels)


def _records(builder, name: str) -> Iterator[bytes]:
    """The serialized examples of a split, in the stored order."""
    if builder.info.file_format.value == "tfrecord":
        for path in builder.info.splits[name].filepaths:
            yield from _tfrecords(os.fspath(path))
        return
    source = builder.as_data_source(split=name).data_source
    for start in range(0, len(source), _BATCH):
        yield from source.__getitems__(range(start, min(start + _BATCH, len(source))))


def _tfrecords(path: str) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its CRC (4), data, its CRC (4)."""
    with open(path, "rb") as file:
        while header := file.read(12):
            length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else 0
            data = file.read(length)
            if len(header) < 12 or len(data) < length or len(file.read(4)) < 4:
                raise ValueError(f"{path} ends in the middle of an example")
            yield data


def write(
    folder: pathlib.Path,
    *,
    name: str,
    version: str,
    splits: Mapping[str, tuple[np.ndarray, np.ndarray]],
    class_names: Iterable[str],
    description: str,
) -> pathlib.Path:
    """Writes images with labels as a TFDS dataset in array_record files, in the order given.

    The images are stored as Tensor features, which, unlike Image features, are written and read
    without TensorFlow.

    Args:
      folder: a staging folder.
      name: of the dataset.
      version: three numbers with dots.
      splits: by name, images (N, H, W, C) uint8 and labels (N,).
      class_names: one per class.
      description: what a reader is told about it.

    Returns:
      The folder written, folder/NAME/VERSION.

    Raises:
      OSError: the disk is full.
    """
    import tensorflow_datasets as tfds

    shape = next(iter(splits.values()))[0].shape[1:]

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """One dataset, made from arrays."""

        VERSION = tfds.core.Version(version)

        def __init__(self):
            self.name = name
            super().__init__(data_dir=folder, file_format="array_record")

        def _info(self):
            features = {
                "image": tfds.features.Tensor(shape=shape, dtype=np.uint8),
                "label": tfds.features.ClassLabel(names=list(class_names)),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                description=description,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in splits}

        def _generate_examples(self, split):
            images, labels = splits[split]
            rows = zip(images, labels.tolist(), strict=True)
            rows = progress(rows, total=len(images), label=f"storing {split}", unit="images")
            for key, (image, label) in enumerate(rows):
                yield key, {"image": image, "label": label}

    builder = Builder()
    with quiet(), full_disk_as_oserror(folder):
        builder.download_and_prepare(download_dir=folder / "downloads")
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences TFDS's own messages and bars, which name the staging folder."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with open(os.devnull, "w") as sink, contextlib.redirect_stdout(sink):
            yield
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def full_disk_as_oserror(folder: pathlib.Path) -> Iterator[None]:
    """array_record reports a failed write as a RuntimeError with the reason in its text."""
    try:
        yield
    except RuntimeError as error:
        for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), os.fspath(folder)) from error
        raise


def _version(text: str) -> tuple[int, ...] | None:
    """(1, 2, 3) of "1.2.3"; None of a folder that is not a version, such as an incomplete one."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", text) else None
