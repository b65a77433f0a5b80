"""One step against arithmetic by hand, and the two ways of running steps against each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.training import execution
from experiments.training.execution import Executor, Plan, batches, plan_for
from experiments.training.problem import Problem, keep
from experiments.training.steps import initial_state


class Linear(nn.Module):
    """One dense layer on the mean colour, without a bias."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(3, use_bias=False)(images.mean(axis=(1, 2)))


class Small(nn.Module):
    """A network with everything that a state can hold: batch statistics, dropout."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return nn.Dense(3)(x)


def dataset(train=23, test=11, shape=(6, 6, 2)):
    rng = np.random.default_rng(0)

    def split(n):
        return Split(
            rng.integers(0, 256, (n, *shape), dtype=np.uint8),
            rng.integers(0, 3, n).astype(np.int32),
        )

    return Dataset("random", split(train), split(test), ("a", "b", "c"), "random numbers")


def problem(model, steps=6, augment=keep, penalty=None):
    schedule = optax.constant_schedule(0.1)
    return Problem(
        dataset=dataset(),
        model=model,
        optimizer=optax.sgd(schedule, momentum=0.9),
        learning_rate=schedule,
        batch_size=5,
        steps=steps,
        evaluate_every=3,
        augment=augment,
        penalty=penalty,
    )


HOST = Plan(steps_per_dispatch=1, device_resident=False)
DEVICE = Plan(steps_per_dispatch=3, device_resident=True)


def test_a_step_of_softmax_regression_by_hand():
    this = problem(Linear(), penalty=lambda p: 0.5 * jnp.sum(p["Dense_0"]["kernel"] ** 2))
    executor = Executor(this, HOST)
    state = initial_state(this, seed=3)
    weights = np.array(state.params["Dense_0"]["kernel"], np.float64)
    order = batches(3, 23, 5, 0)
    chosen = next(batches(3, 23, 5, 0))
    state = executor.train(state, order, 1, 3)

    train = this.dataset.train
    pixels = train.examples.astype(np.float64) / 255
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    features = ((pixels[chosen] - mean) / deviation).mean(axis=(1, 2))
    logits = features @ weights
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.eye(3)[train.labels[chosen]]
    gradient = features.T @ (probabilities - target) / 5 + weights
    np.testing.assert_allclose(
        state.params["Dense_0"]["kernel"], weights - 0.1 * gradient, rtol=2e-5, atol=2e-6
    )
    loss = -np.log((probabilities * target).sum(axis=1)).mean()
    np.testing.assert_allclose(state.running.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(state.running.penalty, 0.5 * (weights**2).sum(), rtol=1e-5)
    assert state.running.correct == (logits.argmax(axis=1) == train.labels[chosen]).sum()
    np.testing.assert_allclose(
        state.norms,
        [np.linalg.norm(gradient), np.linalg.norm(weights), 0.1 * np.linalg.norm(gradient)],
        rtol=2e-5,
    )


def flip_by_key(key, examples):
    return jnp.where(jax.random.bernoulli(key), examples[:, ::-1], examples)


def test_scanned_chunks_do_what_single_steps_do():
    results = []
    for plan in (HOST, DEVICE):
        this = problem(Small(), augment=flip_by_key)
        executor, state = Executor(this, plan), initial_state(this, seed=1)
        order = batches(1, 23, 5, 0)
        for _ in range(6 // plan.steps_per_dispatch):
            state = executor.train(state, order, plan.steps_per_dispatch, 1)
        assert int(state.step) == 6
        results.append(state)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 249, 250, 251, 500])
def test_evaluation_counts_every_example_once(size):
    this = problem(Linear())
    executor, state = Executor(this, HOST), initial_state(this, seed=0)
    rng = np.random.default_rng(size)
    split = Split(
        rng.integers(0, 256, (size, 6, 6, 2), dtype=np.uint8),
        rng.integers(0, 3, size).astype(np.int32),
    )
    pixels = this.dataset.train.examples.astype(np.float64) / 255
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    features = ((split.examples / 255 - mean) / deviation).mean(axis=(1, 2))
    logits = features @ np.array(state.params["Dense_0"]["kernel"], np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(size), split.labels]
    loss, accuracy = executor.evaluate(state, split)
    assert loss == pytest.approx(losses.mean(), rel=1e-5)
    assert accuracy == (logits.argmax(axis=1) == split.labels).mean()


def test_large_examples_are_evaluated_a_few_at_a_time(monkeypatch):
    this = problem(Linear())
    split = this.dataset.test
    executor, state = Executor(this, HOST), initial_state(this, seed=0)
    whole = executor.evaluate(state, split)
    monkeypatch.setattr(execution, "EVALUATION_BYTES", 4 * split.examples[0].nbytes)
    evaluate, sizes = executor._evaluate, []

    def watched(state, examples, *rest):
        sizes.append(len(examples))
        return evaluate(state, examples, *rest)

    executor._evaluate = watched
    assert executor.evaluate(state, split) == pytest.approx(whole, rel=1e-6)
    assert set(sizes) == {4} and len(sizes) == -(-len(split) // 4) > 1


def test_order_is_a_permutation_per_epoch_and_can_be_joined_anywhere():
    whole = [row for row, _ in zip(batches(7, 23, 5, 0), range(12), strict=False)]
    for epoch in range(3):
        seen = np.concatenate(whole[4 * epoch : 4 * epoch + 4])
        assert len(set(seen)) == 20 and set(seen) <= set(range(23))
    assert not np.array_equal(whole[0], whole[4])
    for start in (1, 4, 6):
        late = batches(7, 23, 5, start)
        for row in whole[start:]:
            np.testing.assert_array_equal(next(late), row)
    assert not np.array_equal(next(batches(8, 23, 5, 0)), whole[0])


def test_initial_parameters_depend_on_the_seed_alone():
    one = problem(Small())
    other = problem(Small(), steps=99, penalty=lambda p: jnp.float32(1))
    same = [initial_state(p, 5).params for p in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, same), strict=True):
        np.testing.assert_array_equal(a, b)
    different = initial_state(one, 6).params
    assert not np.array_equal(different["Conv_0"]["kernel"], same[0]["Conv_0"]["kernel"])


def test_plans():
    assert plan_for(10**12, "cpu") == Plan(1, False)
    assert plan_for(10**6, "gpu").device_resident
    assert not plan_for(10**15, "gpu").device_resident
