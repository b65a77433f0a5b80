"""Supervised tasks: one network, one loss, metrics from sums under a mask."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data.dataset import Dataset
from experiments.data.normalize import normalizer
from experiments.training.networks import Network, gradient_step
from experiments.training.task import Batch, Headline, Keys, Sums

Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def no_augmentation(
    key: jax.Array, examples: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The examples and labels as they are."""
    del key
    return examples, labels


@dataclasses.dataclass(frozen=True, eq=False)
class Supervised:
    """One network that learns labels (or other targets) from examples.

    Attributes:
      model: a Flax Linen module, called as `model(examples, train)`, with the random streams
        "params" and "dropout"; its outputs are float32.
      example_shape: of one example, without the batch.
      optimizer: from the gradient of the loss to an update, metric and learning rate included.
      learning_rate: the schedule inside `optimizer`, for the record.
      loss: (outputs, labels) to one loss for each example, (N,).
      statistics: (outputs, labels, mask) to a dict of sums over the examples where the mask (N,) is
        true.
      finalize: those sums as float64 arrays to a dict of metrics.
      headline: the metric that ranks runs, one of those that `finalize` returns, or "loss".
      normalize: uint8 examples to what the network sees.
      augment: (key, uint8 examples, labels) to changed ones, traced inside the step.
      penalty: parameters to a scalar that is added to the loss, or None.
      initialize: the initial variables to those that training begins with, or None.
      batch_statistics: whether an evaluation is made a second time with the statistics of each
        evaluation batch in batch normalization; its metrics end in "_batch_statistics".
      evaluation_batch: examples of one evaluation batch, or None for what the engine takes.
    """

    model: nn.Module
    example_shape: tuple[int, ...]
    optimizer: optax.GradientTransformation
    learning_rate: optax.Schedule
    loss: Callable[[jax.Array, jax.Array], jax.Array]
    statistics: Callable[[jax.Array, jax.Array, jax.Array], dict[str, jax.Array]]
    finalize: Callable[[Mapping[str, np.ndarray]], dict[str, float]]
    headline: Headline
    normalize: Callable[[jax.Array], jax.Array]
    augment: Augment = no_augmentation
    penalty: Callable[[Any], jax.Array] | None = None
    initialize: Callable[[Any], Any] | None = None
    batch_statistics: bool = False
    evaluation_batch: int | None = None

    training_only = ("penalty",)

    @property
    def schedules(self) -> dict[str, optax.Schedule]:
        return {"learning_rate": self.learning_rate}

    def init(self, rng: jax.Array) -> Network:
        variables = _initial_variables(self.model, self.example_shape, rng)
        if self.initialize is not None:
            variables = self.initialize(variables)
        return Network.create(variables, self.optimizer)

    def train_step(self, state: Network, batch: Batch, rng: Keys) -> tuple[Network, Sums]:
        examples, labels = self.augment(rng.augmentation, *batch)
        count = len(examples)

        def loss_fn(params):
            outputs, collections = self.model.apply(
                {"params": params, **state.collections},
                self.normalize(examples),
                train=True,
                mutable=list(state.collections),
                rngs={"dropout": rng.dropout},
            )
            loss = jnp.mean(self.loss(outputs, labels))
            penalty = jnp.float32(0) if self.penalty is None else self.penalty(params)
            statistics = self.statistics(outputs, labels, jnp.ones(count, bool))
            sums = {"loss": loss * count, "penalty": penalty * count, "count": jnp.int32(count)}
            return loss + penalty, (collections, {**sums, "statistics": statistics})

        return gradient_step(state, self.optimizer, loss_fn)

    def evaluation_step(self, state: Network, batch: Batch, mask: jax.Array, rng: Keys) -> Sums:
        inputs = self.normalize(batch.examples)
        outputs = self.model.apply(state.variables, inputs, train=False)
        losses = self.loss(outputs, batch.labels)
        sums = {
            "loss": jnp.sum(jnp.where(mask, losses, 0.0)),
            "count": jnp.sum(mask),
            "statistics": self.statistics(outputs, batch.labels, mask),
        }
        if self.batch_statistics:
            outputs, _ = self.model.apply(
                state.variables,
                inputs,
                train=True,
                mutable=list(state.collections),
                rngs={"dropout": rng.dropout},
            )
            sums["batch_statistics"] = self.statistics(outputs, batch.labels, mask)
        return sums

    def metrics(self, sums: Sums) -> dict[str, float]:
        values = {"loss": float(sums["loss"] / sums["count"])}
        if "penalty" in sums:
            values["penalty"] = float(sums["penalty"] / sums["count"])
        values |= self.finalize(sums["statistics"])
        if "batch_statistics" in sums:
            again = self.finalize(sums["batch_statistics"])
            values |= {f"{name}_batch_statistics": value for name, value in again.items()}
        return values


# Compiled once for a model, whatever the runs and trials that use it.
@partial(jax.jit, static_argnums=(0, 1))
def _initial_variables(model: nn.Module, shape: tuple[int, ...], key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, *shape), jnp.float32), train=False)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy of each example, (N,).

    Args:
      logits: (N, classes).
      labels: classes, integers (N,), or probabilities of classes, (N, classes).
    """
    if labels.ndim == 2:
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def classification(
    model: nn.Module,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    learning_rate: optax.Schedule,
    **options: Any,
) -> Supervised:
    """A classifier: cross-entropy, headline accuracy (the share of examples classified right).

    Where an augmentation makes labels that are probabilities, the likeliest class is the right one.

    Args:
      model: examples to logits (N, num_classes).
      dataset: what it is trained on; its training split gives the normalisation.
      optimizer: see `Supervised`.
      learning_rate: see `Supervised`.
      **options: `augment`, `penalty` and `loss` of `Supervised`.
    """

    def hits(logits, labels, mask):
        likeliest = jnp.argmax(labels, axis=-1) if labels.ndim == 2 else labels
        right = jnp.argmax(logits, axis=-1) == likeliest
        return {"hits": jnp.sum(right & mask), "examples": jnp.sum(mask)}

    return Supervised(
        **{
            "model": model,
            "example_shape": dataset.example_shape,
            "optimizer": optimizer,
            "learning_rate": learning_rate,
            "loss": cross_entropy,
            "statistics": hits,
            "finalize": lambda sums: {"accuracy": float(sums["hits"] / sums["examples"])},
            "headline": Headline("accuracy", higher_is_better=True, percent=True),
            "normalize": normalizer(dataset.train),
            **options,
        }
    )
