"""What the engine keeps of a trial: a task's state, the step, and sums since the last evaluation.

All randomness of a trial is a function of its seed, the stream and the step, so a checkpoint needs
no generator, and a resumed trial draws the same numbers.
"""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from experiments.training.task import Batch, Keys, Task

# Numbers of the independent random streams of a seed. Published runs depend on them.
INITIALISATION, AUGMENTATION, DROPOUT, LATENT, EVALUATION = range(5)


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, so that saving it is enough to resume to the bit.

    Attributes:
      step: steps done.
      state: the task's.
      sums: the task's sums over the steps since the last evaluation.
    """

    step: jax.Array
    state: Any
    sums: Any


def stream(seed: int | jax.Array, name: int) -> jax.Array:
    """The key of one random stream of the trial with this seed."""
    return jax.random.fold_in(jax.random.key(seed), name)


def step_keys(seed: int | jax.Array, step: jax.Array) -> Keys:
    """The keys of a training step."""
    return Keys(
        *(jax.random.fold_in(stream(seed, s), step) for s in (AUGMENTATION, DROPOUT, LATENT))
    )


def evaluation_keys(batch: int | jax.Array) -> Keys:
    """The keys of one evaluation batch: the same at every evaluation and for every seed."""
    root = jax.random.fold_in(stream(0, EVALUATION), batch)
    return Keys(*(jax.random.fold_in(root, s) for s in (AUGMENTATION, DROPOUT, LATENT)))


def initial_state(task: Task, batch: Batch, seed: int) -> TrainState:
    """The state before the first step: the same for a seed, whatever the metric.

    Args:
      task: what is trained.
      batch: a batch of the size of a training step; only its shapes are used.
      seed: of the trial.
    """
    state = task.init(stream(seed, INITIALISATION))

    def sums_of_a_step(state, batch):
        return task.train_step(state, batch, step_keys(0, jnp.int32(0)))[1]

    shapes = jax.eval_shape(sums_of_a_step, state, batch)
    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return TrainState(step=jnp.int32(0), state=state, sums=sums)


def cleared(state: TrainState) -> TrainState:
    """The state with its sums set to zero, after an evaluation."""
    return state.replace(sums=jax.tree.map(jnp.zeros_like, state.sums))
