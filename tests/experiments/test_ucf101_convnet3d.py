"""The video binary: its settings, its pairs, its sweeps, on a few small moving digits."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import optflow_jax
from experiments import data, filters
from experiments import ucf101_convnet3d as binary
from experiments.errors import NonFiniteLossError, UserError
from experiments.training.execution import Executor, batches, plan_for
from experiments.training.steps import initial_state

# A step or two on clips so small that compiling is all the time it takes.
SMALL = (
    "--dataset=moving_digits", "--size=16", "--train_examples=32", "--epochs=1",
    "--evaluate_every=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips():
    return data.load(
        "moving_digits", own="ucf101", size=16, frames=16, train=32, validation=10, test=10
    )


def config(**changes):
    base = binary.VideoConfig(
        dataset="moving_digits", model="convnet3d", batch_size=16, epochs=1.0, learning_rate=1e-3
    )
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("flag", "change"),
    [
        ("--optflow_strength", {"optflow_strength": -1.0}),
        ("--l2_strength", {"l2_strength": -1.0}),
        ("--dropout", {"dropout": 1.0}),
        ("--alpha", {"alpha": 0.0}),
        ("--channels", {"channels": "hsv"}),
    ],
)
def test_bad_settings_name_their_flag(flag, change):
    with pytest.raises(UserError, match=f"^{flag}: got .*accepted"):
        config(**change)


def test_presets_are_table_1_of_the_paper(clips):
    paper = binary.presets(clips)["paper"]
    full = config(**paper)
    assert full.total_steps(len(clips.train)) == 5_000
    assert full.steps_between_evaluations(len(clips.train)) == 500
    assert (full.learning_rate, full.l2_strength, full.dropout) == (1e-5, 1e-3, 0.2)
    assert (full.momentum, full.momentum_step, full.momentum_max) == (0.5, 0.1, 0.9)
    assert 1 / full.decay_factor == pytest.approx(0.95) and full.decay_epochs == 1
    assert full.batch_size == 8 and full.schedule == "step" and full.optimizer == "sgd"


def test_strengths_share_initialisation_and_the_penalty_is_the_mean_cost(clips):
    states, penalties = [], []
    for strength in (0.0, 3.0):
        problem = binary.build(config(optflow_strength=strength, dropout=0.0), clips)
        state = initial_state(problem, 0)
        states.append(state.params)
        kernel = state.params[binary.FIRST_LAYER]["kernel"]
        executor = Executor(problem, plan_for(1))
        after = executor.train(jax.tree.map(np.array, state), batches(0, 32, 16, 0), 1, 0)
        penalties.append(float(after.running.penalty))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(a, b)
    assert penalties[0] == 0.0
    collapsed = np.asarray(kernel).mean(axis=3)
    costs = [optflow_jax.cost(collapsed[..., i]) for i in range(collapsed.shape[-1])]
    assert penalties[1] == pytest.approx(3.0 * np.mean(costs), rel=1e-5)


@pytest.mark.parametrize("flag", ["--classes=3", "--size=2"])
def test_an_option_that_the_dataset_refuses_names_its_flag(run_main, tmp_path, flag):
    with pytest.raises(UserError, match=f"^{flag.split('=')[0]}: "):
        run_main("ucf101_convnet3d", *SMALL, flag, f"--workdir={tmp_path}/w")
    assert not list(tmp_path.iterdir())


def test_train_examples_are_checked(clips):
    labels = binary.limited(clips, 12).train.labels
    assert len(labels) == 12 and set(np.bincount(labels, minlength=10)) == {1, 2}
    assert binary.limited(clips, None) is clips
    with pytest.raises(UserError, match="^--train_examples: got 33; accepted is 1 to 32"):
        binary.limited(clips, 33)


def test_sweep_draws_its_figures_and_conclusions_and_filters_can_be_looked_at(
    run_process, tmp_path
):
    workdir = tmp_path / "w"
    done = run_process(
        "ucf101_convnet3d", "no", *SMALL, "--sweep=optflow_strength:0,1", f"--workdir={workdir}"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert [run["name"] for run in summary["runs"]] == ["baseline", "optflow_strength=1"]
    assert summary["runs"][1]["settings"]["optflow_strength"] == 1.0
    for run in summary["runs"]:
        (trial,) = run["trials"]
        assert {"test_accuracy", "train_accuracy", "validation_accuracy", "best"} <= set(trial)
        assert trial["best"]["validation_accuracy"] >= trial["validation_accuracy"]
    assert "chosen by validation" in done.stdout
    for name in ("accuracy.png", "sweep_optflow_strength.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    rows = json.loads((workdir / "conclusions.json").read_text())
    assert [row["setting"] for row in rows] == ["none", "optflow_strength"]

    name, seed, settings = filters.read_run(workdir, "optflow_strength=1", None)
    assert (name, seed, settings["optflow_strength"]) == ("optflow_strength=1", 0, 1.0)
    with pytest.raises(UserError, match="^--run: got 'x'; accepted are baseline"):
        filters.read_run(workdir, "x", None)
    with pytest.raises(UserError, match="^--seed: got 5; accepted is 0 to 0"):
        filters.read_run(workdir, None, 5)
    last = filters.read_parameters(workdir, name, seed, "last")
    clips = data.load("moving_digits", own="ucf101", size=16)
    response = filters.activations(last, clips, 0)
    kernel = np.asarray(last["kernel"])
    assert response.shape == (*clips.example_shape[:3], kernel.shape[-1])
    # One response in the middle of the clip, by hand.
    pixels = clips.train.examples / 255.0
    mean, deviation = pixels.mean(axis=(0, 1, 2, 3)), pixels.std(axis=(0, 1, 2, 3))
    clip = (clips.test.examples[0] / 255.0 - mean) / deviation
    t, y, x = (n // 2 for n in kernel.shape[:3])
    patch = clip[8 - t : 8 + t + 1, 8 - y : 8 + y + 1, 8 - x : 8 + x + 1]
    by_hand = np.einsum("tyxc,tyxco->o", patch, kernel) + np.asarray(last["bias"])
    np.testing.assert_allclose(response[8, 8, 8], np.maximum(by_hand, 0), rtol=1e-3, atol=1e-4)


def test_a_sweep_in_which_a_run_diverges_still_ends_with_its_conclusions(run_main, tmp_path):
    with pytest.raises(NonFiniteLossError, match="^1 trials did not end: learning_rate=1e"):
        run_main(
            "ucf101_convnet3d", *SMALL, "--sweep=learning_rate:1e30", f"--workdir={tmp_path}/w"
        )
    baseline, diverged = json.loads((tmp_path / "w" / "conclusions.json").read_text())
    assert (diverged["setting"], diverged["chosen"]) == ("learning_rate", "baseline")
    assert (tmp_path / "w" / "sweep_learning_rate.png").exists()


def test_a_dataset_without_validation_trains_but_cannot_be_swept(run_main, tmp_path, monkeypatch):
    def load(own, size, classes):
        return data.load(
            "moving_digits", own=own, size=16, frames=16, train=32, validation=0, test=10
        )

    monkeypatch.setattr(binary.common_flags, "load_dataset", load)
    with pytest.raises(UserError, match="^--sweep, --random_search: .* no validation"):
        run_main("ucf101_convnet3d", *SMALL, "--sweep=dropout:0", f"--workdir={tmp_path}/w")
    assert not list(tmp_path.iterdir())
    run_main("ucf101_convnet3d", *SMALL, f"--workdir={tmp_path}/w")
    summary = json.loads((tmp_path / "w" / "summary.json").read_text())
    assert "best" not in summary["runs"][0]["trials"][0]


def test_random_search_reports_the_best(run_main, tmp_path, capsys, monkeypatch):
    asked = []

    def run_study(runs, seeds, dataset, build, workdir, policy):
        asked.extend(runs)
        rows = [
            {
                "name": run.name,
                "settings": run.config.to_json(),
                "trials": [{"seed": 0, "best": {"validation_accuracy": 0.1 * index}}],
            }
            for index, run in enumerate(runs)
        ]
        diverged = {"seed": 0, "error": "loss became nan", "test_accuracy": None}
        rows[1]["trials"] = [diverged]
        return {"runs": rows}

    monkeypatch.setattr(binary.common_flags.study, "run_study", run_study)
    monkeypatch.setattr(binary.common_flags.statistics, "table", lambda summary: "")
    with pytest.raises(NonFiniteLossError, match="^1 trials did not end: loss became nan"):
        run_main("ucf101_convnet3d", *SMALL, "--random_search=3", f"--workdir={tmp_path}/w")
    assert (tmp_path / "w" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert [run.name for run in asked] == ["random_0", "random_1", "random_2"]
    for name, (low, high) in binary.SEARCHED.items():
        drawn = {getattr(run.config, name) for run in asked}
        scale = binary.QUICK["learning_rate"] if name == "learning_rate" else 1.0
        assert len(drawn) == 3 and all(0.99 * low <= d / scale <= 1.01 * high for d in drawn)
    said = capsys.readouterr().out
    rate = asked[2].config.learning_rate
    assert f"best by validation (20.00 %): random_2, learning_rate {rate:g}, l2_strength" in said


def test_sweep_and_random_search_exclude_each_other(run_main, tmp_path):
    with pytest.raises(UserError, match="^--sweep and --random_search"):
        run_main(
            "ucf101_convnet3d", *SMALL, "--sweep=dropout:0", "--random_search=2",
            f"--workdir={tmp_path}/w",
        )  # fmt: skip
