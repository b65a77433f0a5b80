"""The one type that every source of examples returns."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.data import mapped, normalize
from experiments.data.mapped import MappedRows
from experiments.system.errors import ConfigError, UserError

_ROWS_AT_ONCE = 256


class DatasetNotPrepared(UserError):
    """A dataset is not under the data directory, or it is damaged there.

    The message names the command that prepares or repairs it.
    """


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples with their labels.

    A label is a class, an image of classes (segmentation, label-to-image), or a target that is an
    array of floats (regression).

    Args:
      examples: uint8, images (N, H, W, C) or clips (N, T, H, W, C). An `np.memmap` and its
        `MappedRows` stay on the disk: index them in batches.
      labels: classes, int32 (N,); or images of classes, uint8 or int32 (N, H, W); or any other
        target, floats (N, ...).
      digest: SHA-256 that identifies the contents, where the source knows one. By default
        `fingerprint` hashes the arrays.

    Raises:
      ConfigError: a field has another dtype or shape.

    Example:
      >>> split = Split(np.zeros((6, 4, 4, 3), np.uint8), np.array([0, 0, 0, 0, 1, 1], np.int32))
      >>> len(split), split.subset(2).labels.tolist()
      (6, [0, 1])
    """

    examples: np.ndarray | MappedRows
    labels: np.ndarray | MappedRows
    digest: str | None = None

    def __post_init__(self):
        examples, labels = self.examples, self.labels
        if examples.dtype != np.uint8 or examples.ndim not in (4, 5):
            raise ConfigError(
                "examples",
                f"{examples.dtype} of shape {examples.shape}",
                "uint8 images (N, H, W, C) or clips (N, T, H, W, C)",
            )
        classes = labels.dtype == np.int32 and labels.shape == examples.shape[:1]
        image_shape = (len(examples), *examples.shape[-3:-1])
        images = labels.dtype in (np.uint8, np.int32) and labels.shape == image_shape
        others = labels.dtype.kind == "f" and labels.shape[:1] == examples.shape[:1]
        if not (classes or images or others):
            raise ConfigError(
                "labels",
                f"{labels.dtype} of shape {labels.shape}",
                f"classes, int32 ({len(examples)},); images of classes, uint8 or int32 "
                f"{image_shape}; or targets, floats ({len(examples)}, ...)",
            )

    def __getstate__(self) -> dict[str, Any]:
        # A memory-mapped array is pickled as the place of its file, not with its contents.
        return {name: mapped.pickled(value) for name, value in self.__dict__.items()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            object.__setattr__(self, name, mapped.unpickled(value))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_classes(self) -> bool:
        """Whether the labels are classes or images of classes, not floats."""
        return self.labels.dtype.kind != "f"

    @functools.cached_property
    def channel_statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of each channel; see `normalize.channel_statistics`."""
        return normalize.channel_statistics(self)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 that identifies the examples and labels, in hexadecimal digits."""
        if self.digest is not None:
            return self.digest
        hashed = hashlib.sha256()
        for array in (self.examples, self.labels):
            hashed.update(f"{array.dtype.str} {array.shape} ".encode())
            for rows in _in_parts(array):
                hashed.update(np.ascontiguousarray(rows).data)
        return hashed.hexdigest()

    def take(self, rows: np.ndarray | slice, digest: str | None = None) -> Split:
        """Some of the examples; what is memory-mapped stays on the disk.

        Args:
          rows: their numbers, a boolean for each example, or a slice.
          digest: of the new split.
        """
        return Split(mapped.rows_of(self.examples, rows), mapped.rows_of(self.labels, rows), digest)

    def subset(self, count: int) -> Split:
        """Draws `count` examples at random, the same ones every time.

        Where a label is one class, every class gives equally many examples, as long as it has that
        many. A smaller subset is part of a larger one. The examples keep their order; see `take`.

        Example:
          >>> labels = np.array([0, 0, 0, 1, 1, 2], np.int32)
          >>> Split(np.zeros((6, 2, 2, 1), np.uint8), labels).subset(3).labels.tolist()
          [0, 1, 2]
        """
        if count >= len(self):
            return self
        drawn = np.random.default_rng(0).permutation(len(self))
        if self.has_classes and self.labels.ndim == 1:
            _, classes, sizes = np.unique(
                self.labels[drawn], return_inverse=True, return_counts=True
            )
            # The turn of a drawn example is its number among the examples of its class.
            turn = np.empty(len(self), np.int64)
            first_of_class = np.repeat(np.cumsum(sizes) - sizes, sizes)
            turn[np.argsort(classes, kind="stable")] = np.arange(len(self)) - first_of_class
            drawn = drawn[np.argsort(turn, kind="stable")]
        chosen = np.sort(drawn[:count])
        digest = None
        if self.digest is not None:
            digest = hashlib.sha256(f"{self.digest} subset {count}".encode()).hexdigest()
        return self.take(chosen, digest)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled dataset from any source.

    Args:
      name: the name it is asked for by, such as "cifar10".
      train: the examples to learn from.
      test: the examples of the reported result, all of them.
      class_names: one per class; a label is an index into them. () where labels are floats.
      provenance: where the examples come from and what was done to them, in words.
      validation: the examples that choices are made on, where the source has any.
      mirror_symmetric: whether an example keeps its class when left and right are exchanged (false
        for digits and for motions).
      ignore_label: label that does not count: no loss, no metric. None where every label counts.
      data_dir: the folder that the dataset was loaded from, absolute; None for embedded datasets.

    Raises:
      ConfigError: the labels or the example shapes of a split do not fit the rest.

    Example:
      >>> images = np.zeros((2, 4, 4, 3), np.uint8)
      >>> labels = np.full((2, 4, 4), 255, np.uint8)
      >>> labels[:, 1:3, 1:3] = 1
      >>> split = Split(images, labels)
      >>> made = Dataset("made", split, split, ("sky", "tree"), "made here", ignore_label=255)
      >>> made.example_shape, made.num_classes
      ((4, 4, 3), 2)
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    provenance: str
    validation: Split | None = None
    mirror_symmetric: bool = True
    ignore_label: int | None = None
    data_dir: str | None = None

    def __post_init__(self):
        for name, split in self.splits().items():
            if split.examples.shape[1:] != self.train.examples.shape[1:]:
                raise ConfigError(
                    name,
                    f"examples of shape {split.examples.shape[1:]}",
                    f"the shape of train, {self.train.examples.shape[1:]}",
                )
            if split.labels.shape[1:] != self.train.labels.shape[1:]:
                raise ConfigError(
                    name,
                    f"labels of shape {split.labels.shape[1:]}",
                    f"the shape of train, {self.train.labels.shape[1:]}",
                )
            if split.has_classes:
                self._check_range(name, split.labels)

    def _check_range(self, name: str, labels: np.ndarray) -> None:
        for rows in _in_parts(labels):
            counted = rows if self.ignore_label is None else rows[rows != self.ignore_label]
            if counted.size and not 0 <= counted.min() <= counted.max() < len(self.class_names):
                ignored = "" if self.ignore_label is None else f" and {self.ignore_label} (ignored)"
                raise ConfigError(
                    name,
                    f"labels from {counted.min()} to {counted.max()}",
                    f"0 to {len(self.class_names) - 1}, one per class name{ignored}",
                )

    def splits(self) -> dict[str, Split]:
        """The splits there are, by name: train, validation where there is one, test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    def with_train_examples(self, count: int) -> Dataset:
        """The dataset with `count` of its training examples; see `Split.subset`.

        Raises:
          ConfigError: there are fewer training examples, or count is below 1.

        Example:
          >>> split = Split(np.zeros((6, 2, 2, 1), np.uint8), np.zeros(6, np.int32))
          >>> made = Dataset("made", split, split, ("sky", "tree"), "made here")
          >>> fewer = made.with_train_examples(2)
          >>> len(fewer.train), len(fewer.test), fewer.fingerprint == made.fingerprint
          (2, 6, False)
        """
        if not 1 <= count <= len(self.train):
            raise ConfigError(
                "train_examples",
                count,
                f"1 to {len(self.train)}, the training examples of {self.name}",
            )
        return dataclasses.replace(self, train=self.train.subset(count))

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 that identifies what is learnt from and measured on.

        It changes with the examples and labels of every split, the class names and the label that
        is ignored; not with the folder that the data is in. Computed on first use.
        """
        parts = [repr(self.class_names), repr(self.ignore_label)]
        parts += [f"{name} {split.fingerprint}" for name, split in self.splits().items()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image or (T, H, W, C) of a clip."""
        return self.train.examples.shape[1:]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def _in_parts(array: np.ndarray) -> Iterator[np.ndarray]:
    """The rows of an array, some at a time, so that a memory map is never read whole."""
    for start in range(0, len(array), _ROWS_AT_ONCE):
        yield array[start : start + _ROWS_AT_ONCE]
