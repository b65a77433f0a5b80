"""What the parts share: sizes, dataset, and what an earlier part has compiled."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from experiments.data.dataset import Dataset
from experiments.system.output import say


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How large everything is.

    Attributes:
      name: "full" or how they were reduced.
      seconds: the default budget.
      shares: of the budget, by the name of a part.
      depth: layers of the ResNet.
      batches: batch sizes of its training step; the first is that of every other part.
      precisions: of the training step.
      steps: length of a paired trial in steps, by the name of the dataset ("" for the others).
      turns: the most turns of a comparison.
      repeats: applications of a small function in one timed call.
      channels: lengths of the axis for the Sobolev methods.
      most_elements: of an array for the Sobolev methods.
      filters: sets of OptFlow's filters, (N, T, H, W).
      trials: trials side by side.
      workers: threads that compile side by side.
    """

    name: str
    seconds: float
    shares: dict[str, float]
    depth: int
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    steps: dict[str, int]
    turns: int
    repeats: int
    channels: tuple[int, ...]
    most_elements: int
    filters: tuple[tuple[int, int, int, int], ...]
    trials: int
    workers: int


FULL = Sizes(
    name="full",
    seconds=540.0,
    shares={
        "agreement": 0.15,
        "training_step": 0.28,
        "overhead": 0.17,
        "sobolev": 0.08,
        "optflow": 0.08,
        "trials": 0.14,
        "paired": 0.10,
    },
    depth=56,
    batches=(128, 8),
    precisions=("float32", "bfloat16"),
    steps={"cifar10": 1950, "": 300},
    turns=20,
    repeats=50,
    channels=(16, 32, 64, 128, 256, 512, 1024, 2048, 4096),
    most_elements=2**22,
    filters=(
        (64, 7, 7, 7),
        (64, 3, 3, 3),
        (512, 7, 7, 7),
        (96, 4, 11, 11),
        (16, 16, 16, 16),
        (16, 7, 7, 7),
    ),
    trials=4,
    workers=4,
)
REDUCED = Sizes(
    name="reduced for a CPU",
    seconds=120.0,
    shares={
        "agreement": 0.25,
        "training_step": 0.20,
        "overhead": 0.12,
        "sobolev": 0.10,
        "optflow": 0.10,
        "trials": 0.13,
        "paired": 0.10,
    },
    depth=8,
    batches=(16, 8),
    precisions=("float32", "bfloat16"),
    steps={"": 20},
    turns=5,
    repeats=1,
    channels=(16, 64, 256, 1024),
    most_elements=2**17,
    filters=((16, 3, 3, 3), (16, 5, 5, 5)),
    trials=2,
    workers=1,
)


@dataclasses.dataclass
class Setup:
    """What a part is given.

    Attributes:
      sizes: how large everything is.
      dataset: images for the ResNet.
      data_dir: folder of the prepared datasets.
      out: folder of the results.
      cache: folder of the compiled programs, for processes that a part starts; None without one.
      notice: is called with lines about progress.
      kept: what a part leaves for later ones.
    """

    sizes: Sizes
    dataset: Dataset
    data_dir: str
    out: pathlib.Path
    cache: str | None = None
    notice: Callable[[str], None] = say
    kept: dict[str, Any] = dataclasses.field(default_factory=dict)
