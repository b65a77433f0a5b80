"""What the engine asks of a task: anything that is learnt step by step from a dataset."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import optax

State = Any  # what a task trains: any pytree of arrays
Sums = Any  # a pytree of arrays that is added leaf by leaf, and of `Rows` that are joined


@dataclasses.dataclass(frozen=True)
class Headline:
    """The number that ranks runs, picks the best checkpoint and labels tables and figures.

    Attributes:
      name: a key of what `Task.metrics` returns, such as "accuracy".
      higher_is_better: its direction.
      percent: whether tables and figures show 100 times the number, with a percent sign.
    """

    name: str
    higher_is_better: bool = True
    percent: bool = False

    @property
    def scale(self) -> float:
        """What tables and figures multiply the number by."""
        return 100.0 if self.percent else 1.0

    @property
    def words(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @property
    def label(self) -> str:
        """The name with its unit, for an axis."""
        return f"{self.words} (%)" if self.percent else self.words

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is strictly better than `other`."""
        return value > other if self.higher_is_better else value < other


class Batch(NamedTuple):
    """Examples of one step: uint8 (N, ...), and their labels or targets (N, ...)."""

    examples: jax.Array
    labels: jax.Array


class Rows(NamedTuple):
    """What an evaluation keeps of every example, where a sum would not do.

    `Task.metrics` gets the rows of the whole split as one array, without the padding.

    Attributes:
      values: (N, ...), one row for each example of the batch.
      mask: (N,), which of them are no padding.
    """

    values: jax.Array
    mask: jax.Array


class Keys(NamedTuple):
    """Random keys of one step, each from a stream of its own of (seed, step).

    Attributes:
      augmentation: for changing the examples.
      dropout: for what is random inside a network.
      latent: for the inputs of a generator.
    """

    augmentation: jax.Array
    dropout: jax.Array
    latent: jax.Array


class Task(Protocol):
    """Networks, losses, optimizers, augmentation, sums and the final formula.

    Every metric is a sum over examples and a formula at the end: accuracy is the sum of hits over
    the count, mean intersection over union comes from a confusion matrix, a Frechet distance from
    (n, sum x, sum x x'). Where that loses digits, an evaluation keeps `Rows`. The engine adds the
    sums, pads and masks batches, compiles, shards, saves and resumes; it never looks inside a
    state.

    All methods but `metrics` are traced by JAX, so they are pure functions of their arguments.

    Attributes:
      headline: the number that ranks runs.
      schedules: learning rates by name, each a function of the step; they are recorded.

    A task may have more members:

      training_only: names of metrics that only training steps have, such as a penalty. They are
        recorded under their own names, without a split in front.
      evaluation_batch: the most examples of an evaluation batch, where the memory that they need is
        not told by their size; None for the engine's own limits.
      final_train_examples: at most this many training examples are evaluated at the end of a trial,
        where the metrics depend on the number of examples, or one takes long.
      pictures(state, batch, rng): pictures of a few test examples, a tuple of uint8 (N, H, W, 3),
        traced by JAX. Every evaluation stores them as one .png, a column for each.
      picture_names: the names of these columns.
    """

    headline: Headline
    schedules: Mapping[str, optax.Schedule]

    def init(self, rng: jax.Array) -> State:
        """The state before the first step, from the key of the seed's stream 0."""
        ...

    def train_step(self, state: State, batch: Batch, rng: Keys) -> tuple[State, Sums]:
        """One step: the next state, and sums over the batch; the same for the same arguments."""
        ...

    def evaluation_step(self, state: State, batch: Batch, mask: jax.Array, rng: Keys) -> Sums:
        """Sums over the examples of a batch where mask (N,) is true; the others are padding."""
        ...

    def metrics(self, sums: Sums) -> dict[str, float]:
        """Metrics from sums of steps or of evaluation steps, as float64 arrays on the host.

        A metric whose sums are not among them (the penalty of a training step, say) is left out.
        """
        ...
