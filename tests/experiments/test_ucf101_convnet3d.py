"""The video command: its settings, its pairs, its sweeps, on a few small moving digits."""

import contextlib
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax
from experiments import data
from experiments import ucf101_convnet3d as command
from experiments.cli import training
from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError, NonFiniteError, UserError
from experiments.training.execution import Executor, batches
from experiments.training.settings import with_settings

# A step or two on clips so small that compiling is all the time it takes.
SMALL = (
    "--dataset=moving_digits", "--size=16", "--train_examples=32", "--epochs=1",
    "--evaluate_every=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips():
    return data.load(
        "moving_digits", preferred="ucf101", size=16, frames=16, train=32, validation=10, test=10
    )


def config(**changes):
    base = {"batch_size": 16, "epochs": 1.0, "learning_rate": 1e-3, "momentum": 0.5}
    return with_settings(command.VideoConfig(), base | changes)


def engine(settings, clips):
    task, length = command.build(settings, clips)
    return Executor(task, clips, length.batch_size)


def preset(name, dataset, **flags):
    """The settings that a preset gives for a dataset."""
    chosen = {}

    def main(values):
        chosen["config"] = training.settings_flags.make_config(
            values, command.VideoConfig, command.EXPERIMENT.presets, dataset
        )

    arguments = [f"--preset={name}", *(f"--{key}={value}" for key, value in flags.items())]
    training.command.call(main, command.EXPERIMENT.define, *arguments)
    return chosen["config"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("optflow_strength", float("nan")),
        ("optflow_strength", -1.0),
        ("l2_strength", -1.0),
        ("dropout", 1.0),
        ("alpha", 0.0),
        ("channels", "hsv"),
    ],
)
def test_bad_settings_are_named(name, value):
    with pytest.raises(ConfigError, match=f"^{name}: got .*accepted"):
        config(**{"optflow_strength": 1.0, name: value})


def test_the_paper_preset_is_table_1_of_the_paper(clips):
    paper = preset("paper", clips)
    sgd = paper.optimizer
    assert paper.length.steps(len(clips.train)) == 5_000
    assert paper.length.steps_between_evaluations(len(clips.train)) == 500
    assert (sgd.learning_rate, paper.l2_strength, paper.dropout) == (1e-5, 1e-3, 0.2)
    assert (sgd.momentum, sgd.momentum_step, sgd.momentum_max) == (0.5, 0.1, 0.9)
    assert 1 / sgd.decay_factor == pytest.approx(0.95) and sgd.decay_epochs == 1
    assert (paper.length.batch_size, sgd.schedule, sgd.name) == (8, "step", "sgd")


@pytest.mark.parametrize("count", [8, 36, 1004])
@pytest.mark.parametrize("flags", [{}, {"batch_size": 3}])
def test_the_paper_preset_is_5000_steps_whatever_the_number_of_clips(count, flags):
    split = Split(np.zeros((count, 1, 1, 1, 1), np.uint8), np.zeros(count, np.int32))
    length = preset("paper", Dataset("made", split, split, ("a", "b"), ""), **flags).length
    assert length.steps(count) == 5_000
    assert length.steps_between_evaluations(count) == 500


def test_settings_reach_the_network(clips):
    task, _ = command.build(config(dropout=0.37, precision="bfloat16"), clips)
    assert (task.model.dropout_rate, task.model.dtype) == (0.37, jnp.bfloat16)
    assert task.model.widths == (8, 16, 32, 32, 32)
    large = Split(np.zeros((8, 16, 112, 112, 3), np.uint8), np.zeros(8, np.int32))
    large = Dataset("large", large, large, tuple("abcdefghij"), "")
    assert command.build(config(batch_size=8), large)[0].model.widths == (16, 32, 64, 128, 128)


def test_l2_strength_is_the_weight_of_the_sum_of_squares(clips):
    # With no gradient of the loss, a step of SGD is - rate * 2 * strength * parameter.
    task, _ = command.build(config(l2_strength=0.5, momentum=0.0), clips)
    params = {"Conv_0": {"kernel": jnp.full((1, 1, 1, 1, 2), 3.0)}}
    updates, _ = task.optimizer.update(
        jax.tree.map(jnp.zeros_like, params), task.optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["Conv_0"]["kernel"], -1e-3 * 2 * 0.5 * 3.0, rtol=1e-6)


def test_alpha_and_channels_reach_the_penalty(clips):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5, 3, 2)), jnp.float32)
    settings = config(optflow_strength=2.0, alpha=0.3, channels="bgr")
    penalty = command.build(settings, clips)[0].penalty({"Conv_0": {"kernel": kernel}})
    expected = 2 * optflow_jax.regularizer(kernel, channels="bgr", alpha=0.3)
    np.testing.assert_allclose(penalty, expected, rtol=1e-6)
    other = 2 * optflow_jax.regularizer(kernel, channels="mean", alpha=1.0)
    assert abs(float(expected - other)) > 0.01 * float(expected)


def test_the_penalty_is_the_mean_cost(clips):
    this = engine(config(optflow_strength=3.0, dropout=0.0), clips)
    state = this.initial_state(0)
    kernel = state.state.params[command.FIRST_LAYER]["kernel"]
    after = this.train(jax.tree.map(np.array, state), batches(0, 32, 16, 0), 1, 0)
    collapsed = np.asarray(kernel).mean(axis=3)
    costs = [optflow_jax.cost(collapsed[..., i], solver="cg") for i in range(collapsed.shape[-1])]
    assert this.training_metrics(after)["penalty"] == pytest.approx(3.0 * np.mean(costs), rel=1e-5)


def test_runs_of_a_seed_differ_in_their_settings_alone(clips):
    # So weak a penalty changes nothing; another order, dropout or initialisation would.
    after = {}
    settings = config(dropout=0.5, learning_rate=1e-2, batch_size=8)
    without = engine(settings, clips)
    penalized = engine(with_settings(settings, {"optflow_strength": 1e-20}), clips)
    for name, seed, this in (("none", 3, without), ("weak", 3, penalized), ("other", 4, without)):
        order = batches(seed, len(clips.train), 8, 0)
        state = this.initial_state(seed)
        for _ in range(3):
            state = this.train(state, order, 1, seed)
        assert (this.training_metrics(state)["penalty"] > 0) == (name == "weak")
        after[name] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.state.params)])
    np.testing.assert_allclose(after["weak"], after["none"], rtol=1e-4, atol=1e-6)
    assert np.abs(after["other"] - after["none"]).max() > 0.01


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """The workdir of a sweep in which a run diverges, and what the command printed."""
    workdir = tmp_path_factory.mktemp("sweep") / "w"
    arguments = ("--sweep=optflow_strength:0,1", "--sweep=learning_rate:1e30")
    printed, load = io.StringIO(), data.load

    def few(name, *arguments, **options):
        return load(name, *arguments, **options | {"validation": 10, "test": 10})

    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(printed),
        pytest.raises(NonFiniteError, match="^1 trial did not end: learning_rate=1e"),
    ):
        patch.setattr(data, "load", few)
        training.command.call(
            command.EXPERIMENT.main, command.EXPERIMENT.define, *SMALL, *arguments,
            f"--workdir={workdir}",
        )  # fmt: skip
    return workdir, printed.getvalue()


def test_a_sweep_trains_the_baseline_and_each_value(swept):
    *runs, diverged = json.loads((swept[0] / "summary.json").read_text())["runs"]
    assert [run["name"] for run in runs] == ["baseline", "optflow_strength=1"]
    assert diverged["name"] == "learning_rate=1e+30" and diverged["n"] == 0
    assert runs[1]["settings"]["optflow_strength"] == 1.0
    for run in runs:
        (trial,) = run["trials"]
        assert {"test_accuracy", "train_accuracy", "validation_accuracy", "best"} <= set(trial)
        assert trial["best"]["validation_accuracy"] >= trial["validation_accuracy"]


def test_a_sweep_ends_with_conclusions_and_figures(swept):
    workdir, printed = swept
    assert "chosen by validation" in printed
    for name in ("accuracy", "sweep_optflow_strength", "sweep_learning_rate"):
        assert (workdir / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (workdir / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    rows = json.loads((workdir / "conclusions.json").read_text())
    assert [row["setting"] for row in rows] == ["none", "optflow_strength", "learning_rate"]
    assert rows[2]["chosen"] == "baseline"  # its only value diverged


def test_a_run_records_what_it_used(swept):
    runs = json.loads((swept[0] / "config.json").read_text())["settings"]["runs"]
    assert "weight_decay" not in runs["baseline"]  # 2 * l2_strength is what was used
    assert runs["baseline"]["l2_strength"] == 1e-5 and "alpha" not in runs["baseline"]
    assert runs["optflow_strength=1"]["alpha"] == 1.0


def test_a_cost_that_is_nan_stops_the_trial(run_main, tmp_path, monkeypatch):
    # A constant has no gradient, so parameters and classes stay finite: the penalty alone tells.
    monkeypatch.setattr(optflow_jax, "regularizer", lambda kernel, **_: jnp.full((), jnp.nan))
    with pytest.raises(NonFiniteError, match="penalty became nan"):
        run_main("ucf101_convnet3d", *SMALL, "--optflow_strength=1", f"--workdir={tmp_path}/w")


def test_a_dataset_without_validation_is_swept_but_nothing_is_chosen(
    run_main, tmp_path, monkeypatch, capsys
):
    def load(*_, **__):
        return data_load("moving_digits", size=16, frames=16, train=32, validation=0, test=10)

    data_load = data.load
    monkeypatch.setattr(training.data, "load", load)
    run_main("ucf101_convnet3d", *SMALL, "--sweep=dropout:0", f"--workdir={tmp_path}/w")
    assert "nothing is chosen: no validation examples" in capsys.readouterr().out
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert "best" not in summary["runs"][0]["trials"][0]
    assert not list((tmp_path / "w/checkpoints/baseline").glob("*_best"))


def test_random_search_reports_the_best(run_main, tmp_path, capsys, monkeypatch):
    asked = []

    def train(experiment, runs, dataset, build, *, workdir, **_):
        asked.extend(runs)
        workdir.mkdir()
        rows = []
        for index, run in enumerate(runs):
            scores = {"validation_accuracy": 0.1 * index, "test_accuracy": 0.1 * index}
            rows.append(
                {
                    "name": run.name,
                    "settings": training.record(run.config),
                    "trials": [{"seed": 0, "best": scores, **scores}],
                    "n": 1,
                }
            )
        diverged = {"seed": 0, "error": "loss became nan", "test_accuracy": None}
        rows[1]["trials"] = [diverged]
        headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
        return {"runs": rows, "model": "m", "dataset": "d", "headline": headline}

    monkeypatch.setattr(training.study, "train", train)
    monkeypatch.setattr(training.statistics, "table", lambda summary: "")
    with pytest.raises(NonFiniteError, match="^1 trial did not end: loss became nan"):
        run_main("ucf101_convnet3d", *SMALL, "--random_search=3", f"--workdir={tmp_path}/w")
    assert (tmp_path / "w" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert [run.name for run in asked] == ["baseline", "random_0", "random_1", "random_2"]
    baseline, *drawn_runs = asked
    assert baseline.config.optflow_strength == 0
    ranges = {
        "learning_rate": (2e-4, 2e-2),
        "l2_strength": (1e-5, 1e1),
        "dropout": (0.05, 0.6),
        "optflow_strength": (1e-3, 1e5),
    }
    for name, (low, high) in ranges.items():
        drawn = {training.record(run.config)[name] for run in drawn_runs}
        assert len(drawn) == 3 and all(0.99 * low <= d <= 1.01 * high for d in drawn)
    said = capsys.readouterr().out
    rate = asked[3].config.optimizer.learning_rate
    found = json.loads((tmp_path / "w" / "search.json").read_text())
    assert (found["best"], found["settings"]["learning_rate"]) == ("random_2", rate)
    assert f"best by validation (30.00 %): random_2, learning_rate {rate:g}, l2_strength" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric="], "metric: got none; accepted: l2,"),
        (["--metric=l2,sobolev", "--sweep=dropout:0"], "metric: got l2,sobolev; accepted: one"),
        (["--sweep=dropout:nan"], "sweep: got nan; accepted: dropout: a finite number"),
        (["--sweep=dropout:0", "--random_search=2"], "--sweep and --random_search: got both"),
        (["--grid"], "grid: got no --sweep"),
        (["--random_search=2", "--seed=-1"], "seed: got -1; accepted: an integer >= 0"),
        (["--random_search=0"], "random_search: got 0; accepted: an integer >= 1"),
        (["--random_search=100000000"], "random_search: got 100000000"),
        (["--dataset=digits"], "dataset: got 'digits'; accepted: auto, moving_digits, ucf101"),
        (["--classes=3"], "classes: "),
        (["--size=2"], "size: "),
        (["--train_examples=1000000"], "train_examples: got 1000000; accepted: 1 to"),
        (["--validation=1.5"], "validation: got 1.5; accepted: a number > 0 and < 1"),
        (["--trials=100000000"], "trials: got 100000000; accepted: 1 to"),
    ],
)
def test_bad_flags(run_main, tmp_path, arguments, message):
    with pytest.raises(UserError) as caught:
        run_main("ucf101_convnet3d", *SMALL, f"--workdir={tmp_path}/w", *arguments)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())
