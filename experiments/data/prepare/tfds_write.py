"""Writing datasets in TFDS's format without TensorFlow."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from experiments.data import tfds_files
from experiments.system.progress import progress


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
      description: the text that TFDS shows as the dataset's description.

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

    with tfds_files.quiet(), full_disk_as_oserror(folder), temporary_files_in(folder):
        builder = Builder()
        builder.download_and_prepare(download_dir=folder / "downloads")
    return pathlib.Path(builder.data_dir)


@contextlib.contextmanager
def full_disk_as_oserror(folder: pathlib.Path) -> Iterator[None]:
    """Raises an OSError for a full disk, which array_record reports as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        for code in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            if os.strerror(code) in str(error):
                raise OSError(code, os.strerror(code), os.fspath(folder)) from error
        raise


@contextlib.contextmanager
def temporary_files_in(folder: pathlib.Path) -> Iterator[None]:
    """Makes `tempfile` use a folder: TFDS makes temporary folders that it does not remove."""
    before, tempfile.tempdir = tempfile.tempdir, os.fspath(folder)
    try:
        yield
    finally:
        tempfile.tempdir = before
