"""A validation split cut from the training examples of a dataset that has none."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError


def with_validation(dataset: Dataset, share: float) -> Dataset:
    """The dataset with a share of its training examples as its validation split.

    Always the same examples, drawn at random and evenly from all classes (from all examples where
    labels are not classes). A validation split that the dataset has is replaced and not used.

    Args:
      dataset: what is split.
      share: in (0, 1), of each class.

    Raises:
      ConfigError: the share is not in (0, 1), or leaves no example on one side.
    """
    if not 0.0 < share < 1.0:
        raise ConfigError("validation", share, "a number > 0 and < 1")
    train = dataset.train
    order = np.random.default_rng(0).permutation(len(train))
    groups = [order]
    if train.labels.ndim == 1 and np.issubdtype(train.labels.dtype, np.integer):
        labels = np.asarray(train.labels)
        groups = [order[labels[order] == label] for label in np.unique(labels)]
    chosen = np.zeros(len(train), bool)
    for group in groups:
        chosen[group[: round(share * len(group))]] = True
    if chosen.all() or not chosen.any():
        accepted = f"a share that leaves examples on both sides of {len(train)}"
        raise ConfigError("validation", share, accepted)

    def part(which: np.ndarray, name: str) -> Split:
        digest = None
        if train.digest is not None:
            digest = hashlib.sha256(f"{train.digest} {name} {share!r}".encode()).hexdigest()
        return train.take(which, digest)

    return dataclasses.replace(
        dataset, train=part(~chosen, "train"), validation=part(chosen, "validation")
    )
