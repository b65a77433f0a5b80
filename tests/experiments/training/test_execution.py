"""One step against arithmetic by hand, and the two ways of running steps against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.dataset import Split
from experiments.data.read_ahead import ReadAhead
from experiments.training import execution
from experiments.training.execution import Plan, batches, plan_for
from tests.experiments.small import DEVICE, HOST, Linear, Small, classifier, executor


def test_a_step_of_softmax_regression_by_hand():
    penalty = lambda p: 0.5 * jnp.sum(p["Dense_0"]["kernel"] ** 2)  # noqa: E731
    engine = executor(classifier(Linear(), penalty=penalty))
    state = engine.initial_state(3)
    weights = np.array(state.state.params["Dense_0"]["kernel"], np.float64)
    order = batches(3, 23, 5, 0)
    chosen = next(batches(3, 23, 5, 0))
    state = engine.train(state, order, 1, 3)

    train = engine.dataset.train
    pixels = train.examples.astype(np.float64) / 255
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    features = ((pixels[chosen] - mean) / deviation).mean(axis=(1, 2))
    logits = features @ weights
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = np.eye(3)[train.labels[chosen]]
    gradient = features.T @ (probabilities - target) / 5 + weights
    np.testing.assert_allclose(
        state.state.params["Dense_0"]["kernel"], weights - 0.1 * gradient, rtol=2e-5, atol=2e-6
    )
    loss = -np.log((probabilities * target).sum(axis=1)).mean()
    metrics = engine.training_metrics(state)
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert metrics["penalty"] == pytest.approx(0.5 * (weights**2).sum(), rel=1e-5)
    assert metrics["accuracy"] == (logits.argmax(axis=1) == train.labels[chosen]).mean()
    np.testing.assert_allclose(
        state.state.norms,
        [np.linalg.norm(gradient), np.linalg.norm(weights), 0.1 * np.linalg.norm(gradient)],
        rtol=2e-5,
    )


def flip_by_key(key, examples, labels):
    return jnp.where(jax.random.bernoulli(key), examples[:, ::-1], examples), labels


def test_scanned_chunks_do_what_single_steps_do():
    results = []
    for plan in (HOST, DEVICE):
        engine = executor(classifier(Small(), augment=flip_by_key), plan)
        state = engine.initial_state(1)
        order = batches(1, 23, 5, 0)
        for _ in range(6 // plan.steps_per_dispatch):
            state = engine.train(state, order, plan.steps_per_dispatch, 1)
        assert int(state.step) == 6
        results.append(state)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1, 3, 249, 250, 251, 500])
def test_evaluation_counts_every_example_once(size):
    engine = executor(classifier(Linear()))
    state = engine.initial_state(0)
    rng = np.random.default_rng(size)
    split = Split(
        rng.integers(0, 256, (size, 6, 6, 2), dtype=np.uint8),
        rng.integers(0, 3, size).astype(np.int32),
    )
    pixels = engine.dataset.train.examples.astype(np.float64) / 255
    mean, deviation = pixels.mean(axis=(0, 1, 2)), pixels.std(axis=(0, 1, 2))
    features = ((split.examples / 255 - mean) / deviation).mean(axis=(1, 2))
    logits = features @ np.array(state.state.params["Dense_0"]["kernel"], np.float64)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(size), split.labels]
    found = engine.evaluate(state, split)
    assert found["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    assert found["accuracy"] == (logits.argmax(axis=1) == split.labels).mean()


def test_large_examples_are_evaluated_a_few_at_a_time(monkeypatch):
    engine = executor(classifier(Linear()))
    split, state = engine.dataset.test, engine.initial_state(0)
    whole = engine.evaluate(state, split)
    monkeypatch.setattr(execution, "EVALUATION_BYTES", 4 * split.examples[0].nbytes)
    evaluate, sizes = engine._evaluate, []

    def watched(state, batch, *rest):
        sizes.append(len(batch.examples))
        return evaluate(state, batch, *rest)

    engine._evaluate = watched
    assert engine.evaluate(state, split) == pytest.approx(whole, rel=1e-6)
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
    one = executor(classifier(Small()))
    other = executor(classifier(Small(), rate=0.5, penalty=lambda p: jnp.float32(1)))
    same = [engine.initial_state(5).state.params for engine in (one, other)]
    for a, b in zip(*map(jax.tree.leaves, same), strict=True):
        np.testing.assert_array_equal(a, b)
    different = one.initial_state(6).state.params
    assert not np.array_equal(different["Conv_0"]["kernel"], same[0]["Conv_0"]["kernel"])


def test_plans():
    assert plan_for(10**12, "cpu") == Plan(1, False)
    assert plan_for(10**6, "gpu").device_resident
    assert not plan_for(10**15, "gpu").device_resident


def test_batches_that_are_read_ahead_train_to_the_same_bits():
    results = []
    for plan in (HOST, Plan(2, device_resident=False, read_ahead=3)):
        engine = executor(classifier(Small(), augment=flip_by_key), plan)
        state = engine.initial_state(1)
        with engine.reading(batches(1, 23, 5, 0)) as order:
            assert (order.__class__ is ReadAhead) == bool(plan.read_ahead)
            for _ in range(6 // plan.steps_per_dispatch):
                state = engine.train(state, order, plan.steps_per_dispatch, 1)
        results.append(state)
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(a, b)


def test_batches_are_read_ahead_to_the_device_of_the_trial():
    engine = executor(classifier(Linear()), Plan(1, device_resident=False, read_ahead=1))
    with jax.default_device(jax.devices()[3]), engine.reading(batches(0, 23, 5, 0)) as order:
        assert next(order).examples.devices() == {jax.devices()[3]}
