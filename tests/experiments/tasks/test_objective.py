"""A task that hands the objective to its optimizer, and otherwise is `Supervised`."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from experiments.tasks.objective import Objective
from experiments.tasks.supervised import Supervised
from experiments.training.execution import batches
from tests.experiments.small import Linear, classifier, executor, random_dataset


def penalty(params):
    return 0.1 * sum((x**2).sum() for x in jax.tree.leaves(params))


def objective(task: Supervised, **changes) -> Objective:
    fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
    return Objective(**{**fields, **changes})


def trained(task, steps=3):
    run = executor(task)
    state = run.initial_state(0)
    for _ in range(steps):
        state = run.train(state, batches(0, 23, 5, 0), 1, 0)
    return state, run.training_metrics(state)


def test_it_trains_as_supervised_does():
    plain = classifier(Linear(), penalty=penalty)
    expected, told = trained(plain)
    found, also = trained(objective(plain))
    for a, b in zip(jax.tree.leaves(expected.state), jax.tree.leaves(found.state), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert also == pytest.approx(told) and also["penalty"] > 0


def test_a_penalty_that_the_optimizer_takes_itself_is_recorded_and_has_no_gradient():
    free, _ = trained(classifier(Linear()))
    found, told = trained(
        objective(classifier(Linear(), penalty=penalty), penalty_in_gradient=False)
    )
    for a, b in zip(
        jax.tree.leaves(free.state.params), jax.tree.leaves(found.state.params), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert told["penalty"] > 0


def test_a_line_search_sees_the_objective_with_its_penalty():
    dataset = random_dataset()
    task = objective(classifier(Linear(), dataset, penalty=penalty), optimizer=optax.lbfgs())
    run = executor(task)
    state = run.initial_state(0)
    losses = []
    for _ in range(4):  # the same batch each time
        state = run.train(state, batches(0, 23, 5, 0), 1, 0)
        told = run.training_metrics(state)
        losses.append(told["loss"] + told["penalty"])
    # Means over the steps so far, of values that fall.
    assert np.all(np.diff(losses) < 0)
