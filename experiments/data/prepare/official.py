"""TFDS's official builders, which need TensorFlow to prepare; reading the result does not."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import sys

from experiments.data import store, tfds_files
from experiments.data.prepare import tfds_write
from experiments.data.prepare.staging import publish, staging
from experiments.system.errors import ConfigError, is_disk_full


def prepare(name: str, data_dir: str, archives: str | None = None) -> pathlib.Path:
    """Downloads and prepares a dataset by TFDS's own builder, in array_record files.

    A folder that is there is read whole, and prepared again unless it can be used.

    Args:
      name: of the builder, such as "cifar10".
      data_dir: the folder to prepare it under; what TFDS downloads is kept in its `downloads`.
      archives: a folder that holds the files that TFDS would download, under their own names;
        those that are there are not downloaded. TFDS checks their size and SHA-256.

    Returns:
      The folder of the dataset, data_dir/NAME/VERSION.

    Raises:
      ConfigError: TensorFlow is not installed, TFDS cannot download or verify the files, data_dir
        cannot be written, or the disk is full.
    """
    if archives is not None:
        folder_given = store.expanded("archive", archives)
        if not folder_given.is_dir():
            raise ConfigError(
                "archive",
                archives,
                "with --source=tfds, the folder that holds the files that TFDS downloads",
            )
        archives = str(folder_given)
    if importlib.util.find_spec("tensorflow") is None:
        raise ConfigError(
            "source",
            "tfds, which needs TensorFlow",
            "registry; or install TensorFlow with `pip install -e '.[tfds]'`",
        )
    import tensorflow_datasets as tfds

    root = store.root(data_dir)
    with staging(data_dir, name) as folder:
        # On a terminal TFDS shows its own progress bars.
        shown = contextlib.nullcontext() if sys.stderr.isatty() else tfds_files.quiet()
        with (
            shown,
            tfds_write.full_disk_as_oserror(folder),
            tfds_write.temporary_files_in(folder),
        ):
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
            place = root / os.path.relpath(builder.data_dir, folder)
            if place.exists():
                with contextlib.suppress(tfds_files.Unusable):
                    tfds_files.read(place)
                    return place
            config = tfds.download.DownloadConfig(manual_dir=archives)
            try:
                builder.download_and_prepare(
                    download_dir=root / "downloads", download_config=config
                )
            except Exception as error:
                if is_disk_full(error) or getattr(error, "filename", None):
                    raise
                said = (str(error).strip().splitlines() or [""])[0]
                raise ConfigError(
                    "source",
                    f"tfds, which cannot prepare {name}: {type(error).__name__}: {said}",
                    "registry; or tfds with files of the official size and SHA-256",
                ) from error
        publish(pathlib.Path(builder.data_dir), place)
    return place
