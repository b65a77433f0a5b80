"""CIFAR-10, MNIST and Fashion-MNIST, as `prepare_data` or TFDS stored them."""

from __future__ import annotations

from collections.abc import Callable

from experiments.data import store, tfds_files
from experiments.data.dataset import Dataset, DatasetNotPrepared

NAMES = ("cifar10", "mnist", "fashion_mnist")
_MIRROR_SYMMETRIC = {"cifar10": True, "mnist": False, "fashion_mnist": True}


def is_prepared(name: str, data_dir: str) -> bool:
    """Whether the dataset is under data_dir, intact or not."""
    return bool(tfds_files.find(name, data_dir))


def load(name: str, data_dir: str, command: str, notice: Callable[[str], None] = print) -> Dataset:
    """Loads a prepared dataset of images into memory.

    A folder of TFDS's own that cannot be read is skipped where a mirror can.

    Args:
      name: one of `NAMES`.
      data_dir: where it was prepared.
      command: the command line that prepares it, for the error.
      notice: is called with a line that names a folder that was skipped.

    Returns:
      The dataset.

    Raises:
      DatasetNotPrepared: no folder is there, or none can be read; says what is wrong with each.
    """
    folders = tfds_files.find(name, data_dir)
    if not folders:
        raise DatasetNotPrepared(
            f"dataset: {name} is not prepared under {data_dir}; prepare it with: {command}"
        )
    problems = []
    for folder in folders:
        try:
            splits, class_names, description = tfds_files.read(folder)
        except tfds_files.Unusable as error:
            problems.append(f"{name} under {folder} cannot be used: {error}")
            continue
        for problem in problems:
            notice(f"dataset: skipped: {problem}; taking {folder}; delete the folder skipped")
        return Dataset(
            name=name,
            train=splits["train"],
            test=splits["test"],
            class_names=class_names,
            provenance=f"{description.strip()} ({folder})",
            mirror_symmetric=_MIRROR_SYMMETRIC[name],
            data_dir=str(store.root(data_dir)),
        )
    raise DatasetNotPrepared(f"dataset: {'; '.join(problems)}; repair it with: {command}")
