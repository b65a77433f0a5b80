"""The linear classifier: its files, sparsity, its optimizers, what it refuses."""

import functools
import json

import numpy as np
import pytest

from experiments import linear_classifier
from experiments.lectures.valley import valley
from experiments.linear_classifier import OPTIMIZERS, LinearConfig, build
from experiments.system.errors import ConfigError, UserError
from experiments.training.execution import Executor, batches
from experiments.training.settings import record, with_settings


@pytest.fixture
def brief_valley(monkeypatch):
    brief = functools.partial(valley, names=("gd",), steps=2)
    monkeypatch.setattr(linear_classifier, "valley", brief)


def test_l1_weights_are_zero_and_l2_weights_are_not(run_main, tmp_path, brief_valley):
    summary = run_main(
        "linear_classifier", "--dataset=digits", "--loss=svm", "--optimizer=gd", "--penalty=l1",
        "--strength=0.02", "--learning_rate=0.05", "--epochs=150", "--evaluate_every=75",
        "--sweep=penalty:l2", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    sparse, dense = json.loads((tmp_path / "w/weights.json").read_text())
    assert sparse["zeros"] > 0.4 and dense["zeros"] == 0
    assert sparse["l1"] < dense["l1"]
    assert [run["mean"] > 0.9 for run in summary["runs"]] == [True, True]
    names = {path.name for path in (tmp_path / "w").iterdir()}
    assert {"templates.png", "valley.png", "cliff.png", "loss.png", "accuracy.png"} <= names
    settings = summary["runs"][0]["settings"]
    assert settings["image_size"] == 8 and "batch_size" not in settings
    lines = (tmp_path / "w/metrics.jsonl").read_text().splitlines()
    penalties = [json.loads(line)["penalty"] for line in lines]
    assert all(penalty > 0 for penalty in penalties)


@pytest.fixture(scope="module")
def dataset():
    from experiments.data import digits

    return linear_classifier.as_scanned(digits.load(size=8), None).with_train_examples(200)


@pytest.mark.parametrize("name", ["random_search", "gd", "nesterov", "newton"])
def test_an_optimizer_lowers_the_objective(name, dataset):
    rate = linear_classifier.RATES[name] or 1.0
    config = with_settings(
        LinearConfig(),
        {"optimizer": name, "learning_rate": rate, "penalty": "l2", "epochs": 6.0,
         "batch_size": 50},
    )  # fmt: skip
    task, length = build(config, dataset)
    assert length.batch_size == (200 if name in linear_classifier.FULL_BATCH else 50)
    run = Executor(task, dataset, length.batch_size)
    state = run.initial_state(0)
    before = run.evaluate(state, dataset.train)
    order = batches(0, 200, length.batch_size, 0)
    for _ in range(length.steps(200)):
        state = run.train(state, order, 1, 0)
    after = run.evaluate(state, dataset.train)
    assert after["loss"] < before["loss"]
    if name == "newton":
        assert after["accuracy"] > 0.95
    elif name == "random_search":
        assert after["accuracy"] < 0.5


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_downhill_at_its_rate(name):
    rate = linear_classifier.RATES[name] or 1.0
    config = with_settings(
        LinearConfig(), {"optimizer": name, "learning_rate": rate, "schedule": "constant"}
    )
    optimizer, schedule = linear_classifier.make_optimizer(config, steps=10)
    assert float(schedule(9)) == pytest.approx(rate)
    if linear_classifier.RATES[name] is None:
        return  # tests/experiments/training/test_full_batch.py
    params = {"Dense_0": {"kernel": np.ones((1, 1), np.float32)}}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    step = -float(updates["Dense_0"]["kernel"][0, 0])
    # A gradient of 1: the plain rate, or what its root of squares makes of it at the first step.
    first = {"nesterov": 1.9, "rmsprop": 0.1**-0.5, "adagrad": 1.1**-0.5, "adamw": 1.01}
    assert step == pytest.approx(rate * first.get(name, 1.0), rel=1e-3)


def test_settings_that_do_nothing_are_not_recorded():
    recorded = record(LinearConfig())
    assert not {"strength", "l1_ratio", "delta", "momentum", "weight_decay"} & recorded.keys()
    changed = record(with_settings(LinearConfig(), {"penalty": "huber", "optimizer": "lbfgs"}))
    assert {"strength", "delta"} <= changed.keys()
    assert not {"learning_rate", "schedule", "batch_size"} & changed.keys()


@pytest.mark.parametrize(
    ("changes", "accepted"),
    [
        ({"loss": "svm", "optimizer": "newton"}, "another optimizer with --loss=svm"),
        ({"penalty": "l1", "optimizer": "newton"}, "another optimizer with --penalty=l1"),
        ({"loss": "hinge"}, "softmax, svm"),
        ({"optimizer": "bfgs"}, "random_search, gd"),
    ],
)
def test_what_cannot_work_is_refused(changes, accepted):
    with pytest.raises(ConfigError, match=accepted):
        with_settings(LinearConfig(), changes)


def test_the_penalties_are_those_of_the_library(dataset):
    values = {}
    for name in linear_classifier.PENALTIES[1:]:
        changes = {"penalty": name, "strength": 0.5, "l1_ratio": 0.25, "delta": 0.1}
        task, _ = build(with_settings(LinearConfig(), changes), dataset)
        kernel = np.array([[0.05, -1.0], [2.0, 0.0]], np.float32)
        params = {"Dense_0": {"kernel": kernel, "bias": np.ones(2, np.float32)}}
        values[name] = float(task.penalty(params))
    assert values["l1"] == pytest.approx(0.5 * 3.05)
    assert values["l2"] == pytest.approx(0.5 * 5.0025)
    assert values["elastic_net"] == pytest.approx(0.5 * (0.25 * 3.05 + 0.75 * 5.0025))
    assert values["huber"] == pytest.approx(0.5 * (0.00125 + 0.1 * (1 - 0.05) + 0.1 * (2 - 0.05)))


def test_a_command_line_that_cannot_work_is_one_error(run_main, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="optimizer: got newton; accepted: another"):
        run_main("linear_classifier", "--dataset=digits", "--loss=svm", "--optimizer=newton")
    assert not list(tmp_path.iterdir())
