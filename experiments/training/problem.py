"""What the training loop is handed: a model, data and an optimizer that know no flags."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import optax

from experiments.data.dataset import Dataset


def keep(key: jax.Array, examples: jax.Array) -> jax.Array:
    """No augmentation."""
    del key
    return examples


@dataclasses.dataclass(frozen=True)
class Problem:
    """One classification problem.

    Attributes:
      dataset: its train split is learnt from, every other split is evaluated.
      model: a Flax Linen module called as `model(examples, train)`, with the random streams
        "params" and "dropout"; its logits are float32.
      optimizer: from the gradient of the loss to an update, metric and learning rate included.
      learning_rate: the schedule inside `optimizer`, for the record.
      batch_size: examples per step.
      steps: length of the training.
      evaluate_every: steps between evaluations.
      augment: (key, uint8 examples) -> uint8 examples, traced inside the step.
      penalty: parameters -> scalar added to the loss, or None.
    """

    dataset: Dataset
    model: nn.Module
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    batch_size: int
    steps: int
    evaluate_every: int
    augment: Callable[[jax.Array, jax.Array], jax.Array] = keep
    penalty: Callable[[Any], jax.Array] | None = None

    @property
    def steps_per_epoch(self) -> int:
        return len(self.dataset.train) // self.batch_size
