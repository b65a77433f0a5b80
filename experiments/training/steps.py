"""The pure functions of training: initial state, one step, and the evaluation of one batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from experiments.training.preprocess import normalizer
from experiments.training.problem import Problem

# Names of the independent random streams of a trial.
INITIALISATION, AUGMENTATION, DROPOUT = range(3)


@flax.struct.dataclass
class Running:
    """Sums over the steps since the last evaluation, kept on the device."""

    loss: jax.Array
    penalty: jax.Array
    correct: jax.Array
    steps: jax.Array

    @classmethod
    def zero(cls) -> Running:
        return cls(jnp.float32(0), jnp.float32(0), jnp.int32(0), jnp.int32(0))


@flax.struct.dataclass
class TrainState:
    """Everything that a step changes, so that saving it is enough to resume to the bit.

    Attributes:
      step: steps done.
      params: the model's parameters, float32.
      collections: the model's other variables (batch statistics), perhaps none.
      opt_state: the optimizer's.
      running: sums since the last evaluation.
      norms: (gradient, parameters, update) of the last step.
    """

    step: jax.Array
    params: Any
    collections: Any
    opt_state: Any
    running: Running
    norms: jax.Array


def stream(seed: int | jax.Array, name: int) -> jax.Array:
    """The key of one random stream of the trial with this seed."""
    return jax.random.fold_in(jax.random.key(seed), name)


def initial_state(problem: Problem, seed: int) -> TrainState:
    """The state before the first step, the same for a seed whatever the metric."""

    collections = dict(
        _initial_variables(
            problem.model, problem.dataset.example_shape, stream(seed, INITIALISATION)
        )
    )
    params = collections.pop("params")
    return TrainState(
        step=jnp.int32(0),
        params=params,
        collections=collections,
        opt_state=problem.optimizer.init(params),
        running=Running.zero(),
        norms=jnp.zeros(3, jnp.float32),
    )


# Compiled once for a model, whatever the runs and trials that use it.
@partial(jax.jit, static_argnums=(0, 1))
def _initial_variables(model: nn.Module, shape: tuple[int, ...], key: jax.Array) -> Any:
    return model.init(key, jnp.zeros((1, *shape), jnp.float32), train=False)


def make_train_step(
    problem: Problem,
) -> Callable[[TrainState, jax.Array, jax.Array, jax.Array], TrainState]:
    """(state, uint8 examples, labels, seed) -> state. Pure; the caller compiles it.

    All randomness is a function of the seed and the step, so a resumed trial draws the same.
    """
    normalize = normalizer(problem.dataset.train)

    def train_step(state, examples, labels, seed):
        augmented = problem.augment(
            jax.random.fold_in(stream(seed, AUGMENTATION), state.step), examples
        )
        dropout_key = jax.random.fold_in(stream(seed, DROPOUT), state.step)

        def loss_function(params):
            logits, collections = problem.model.apply(
                {"params": params, **state.collections},
                normalize(augmented),
                train=True,
                mutable=list(state.collections),
                rngs={"dropout": dropout_key},
            )
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            loss = jnp.mean(losses)
            penalty = jnp.float32(0) if problem.penalty is None else problem.penalty(params)
            correct = jnp.sum(jnp.argmax(logits, axis=-1) == labels)
            return loss + penalty, (loss, penalty, correct, collections)

        gradient, (loss, penalty, correct, collections) = jax.grad(loss_function, has_aux=True)(
            state.params
        )
        updates, opt_state = problem.optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norms = [optax.tree.norm(tree) for tree in (gradient, state.params, updates)]
        return TrainState(
            step=state.step + 1,
            params=params,
            collections=dict(collections),
            opt_state=opt_state,
            running=Running(
                loss=state.running.loss + loss,
                penalty=state.running.penalty + penalty,
                correct=state.running.correct + correct,
                steps=state.running.steps + 1,
            ),
            norms=jnp.stack(norms).astype(jnp.float32),
        )

    return train_step


def make_evaluation_step(
    problem: Problem,
) -> Callable[[TrainState, jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """(state, uint8 examples, labels, mask) -> sums of loss and of correct answers in the mask."""
    normalize = normalizer(problem.dataset.train)

    def evaluation_step(state, examples, labels, mask):
        logits = problem.model.apply(
            {"params": state.params, **state.collections}, normalize(examples), train=False
        )
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        correct = jnp.argmax(logits, axis=-1) == labels
        return jnp.sum(jnp.where(mask, losses, 0.0)), jnp.sum(correct & mask)

    return evaluation_step
