"""The one type that every source of examples returns."""

from __future__ import annotations

import dataclasses

import numpy as np


class DatasetNotPrepared(ValueError):
    """A dataset was asked for by name and is not under the data directory, or is damaged there.

    The message names the command that prepares or repairs it.
    """


@dataclasses.dataclass(frozen=True)
class Split:
    """Examples with their labels.

    Args:
      examples: uint8, images (N, H, W, C) or clips (N, T, H, W, C); an `np.memmap` is left on the
        disk, so index it in batches.
      labels: int32, (N,).

    Raises:
      ValueError: naming the field whose dtype or shape does not fit.
    """

    examples: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if self.examples.dtype != np.uint8 or self.examples.ndim not in (4, 5):
            raise ValueError(
                f"examples: got {self.examples.dtype} of shape {self.examples.shape}; accepted are "
                "uint8 images (N, H, W, C) or clips (N, T, H, W, C)"
            )
        if self.labels.dtype != np.int32 or self.labels.shape != self.examples.shape[:1]:
            raise ValueError(
                f"labels: got {self.labels.dtype} of shape {self.labels.shape}; accepted is int32 "
                f"of shape ({len(self.examples)},), one per example"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, count: int) -> Split:
        """`count` examples drawn at random, from every class as many (while it has that many).

        Always the same ones, in the order they have here; a smaller subset is part of a larger one.
        They are copied into memory, unless all are wanted.
        """
        if count >= len(self):
            return self
        drawn = np.random.default_rng(0).permutation(len(self))
        by_class = np.argsort(self.labels[drawn], kind="stable")
        sizes = np.bincount(self.labels)
        turn = np.empty(len(self), np.int64)  # of each drawn example among those of its class
        turn[by_class] = np.arange(len(self)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        chosen = np.sort(drawn[np.argsort(turn, kind="stable")[:count]])
        return Split(np.asarray(self.examples[chosen]), self.labels[chosen])


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A labelled dataset, whatever it came from.

    Args:
      name: the name it is asked for by, such as "cifar10".
      train: the examples to learn from.
      test: the examples that the reported accuracy is measured on, all of them.
      class_names: one per class; a label is an index into them.
      provenance: where the examples come from and what was done to them, in words.
      validation: the examples that choices are made on, where the source has any.
      mirror_symmetric: whether a left-right flip leaves an example in its class (not so for
        digits, and not for motions).

    Raises:
      ValueError: naming the split whose labels or example shapes do not fit the rest.
    """

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    provenance: str
    validation: Split | None = None
    mirror_symmetric: bool = True

    def __post_init__(self):
        for name, split in self.splits().items():
            if split.examples.shape[1:] != self.train.examples.shape[1:]:
                raise ValueError(
                    f"{name}: got examples of shape {split.examples.shape[1:]}; accepted is that "
                    f"of train, {self.train.examples.shape[1:]}"
                )
            if len(split) and not (
                0 <= split.labels.min() and split.labels.max() < len(self.class_names)
            ):
                raise ValueError(
                    f"{name}: got labels from {split.labels.min()} to {split.labels.max()}; "
                    f"accepted are 0 to {len(self.class_names) - 1}, one per class name"
                )

    def splits(self) -> dict[str, Split]:
        """The splits there are, by name: train, validation where there is one, test."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def example_shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image or (T, H, W, C) of a clip."""
        return self.train.examples.shape[1:]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)
