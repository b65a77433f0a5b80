"""The video binary: its settings, its pairs, its sweeps, on a few small moving digits."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax
from experiments import data
from experiments import ucf101_convnet3d as binary
from experiments.analysis import filters
from experiments.data.dataset import Dataset, Split
from experiments.system.errors import NonFiniteError, UserError
from experiments.training.checkpoints import Checkpoints
from experiments.training.execution import Executor, batches, plan_for
from experiments.training.steps import initial_state

# A step or two on clips so small that compiling is all the time it takes.
SMALL = (
    "--dataset=moving_digits", "--size=16", "--train_examples=32", "--epochs=1",
    "--evaluate_every=0.5",
)  # fmt: skip


ACCURACIES = ("validation_accuracy", "test_accuracy")


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
        ("--optflow_strength", {"optflow_strength": float("nan")}),
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


@pytest.mark.parametrize("count", [8, 36, 100, 1004, 3484])
@pytest.mark.parametrize("batch", [None, 3])
def test_the_paper_preset_is_5000_steps_whatever_the_number_of_clips(count, batch):
    split = Split(np.zeros((count, 1, 1, 1, 1), np.uint8), np.zeros(count, np.int32))
    dataset = Dataset("made", split, split, ("a", "b"), "")
    preset = binary.presets(dataset, batch)["paper"] | ({"batch_size": batch} if batch else {})
    full = config(**preset)
    assert full.total_steps(count) == 5_000
    assert full.steps_between_evaluations(count) == 500


def test_settings_reach_the_network_and_the_update(clips):
    problem = binary.build(config(dropout=0.37, precision="bfloat16"), clips)
    assert (problem.model.dropout_rate, problem.model.dtype) == (0.37, jnp.bfloat16)
    assert problem.model.widths == (8, 16, 32, 32, 32)
    large = Split(np.zeros((8, 16, 112, 112, 3), np.uint8), np.zeros(8, np.int32))
    large = Dataset("large", large, large, tuple("abcdefghij"), "")
    assert binary.build(config(batch_size=8), large).model.widths == (16, 32, 64, 128, 128)

    # L2: with no gradient of the loss, a step of SGD is - rate * 2 * strength * parameter.
    strong = config(l2_strength=0.5, optimizer="sgd", momentum=0.0, schedule="step")
    params = {"Conv_0": {"kernel": jnp.full((1, 1, 1, 1, 2), 3.0)}}
    optimizer = binary.build(strong, clips).optimizer
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    np.testing.assert_allclose(updates["Conv_0"]["kernel"], -1e-3 * 2 * 0.5 * 3.0, rtol=1e-6)

    # OptFlow: alpha and channels are those of the settings.
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5, 3, 2)), jnp.float32)
    penalty = binary.build(config(optflow_strength=2.0, alpha=0.3, channels="bgr"), clips).penalty(
        {"Conv_0": {"kernel": kernel}}
    )
    expected = 2 * optflow_jax.regularizer(kernel, channels="bgr", alpha=0.3)
    np.testing.assert_allclose(penalty, expected, rtol=1e-6)
    other = 2 * optflow_jax.regularizer(kernel, channels="mean", alpha=1.0)
    assert abs(float(expected - other)) > 0.01 * float(expected)


def test_the_penalty_is_the_mean_cost(clips):
    penalties = []
    for strength in (0.0, 3.0):
        problem = binary.build(config(optflow_strength=strength, dropout=0.0), clips)
        state = initial_state(problem, 0)
        kernel = state.params[binary.FIRST_LAYER]["kernel"]
        executor = Executor(problem, plan_for(1))
        after = executor.train(jax.tree.map(np.array, state), batches(0, 32, 16, 0), 1, 0)
        penalties.append(float(after.running.penalty))
    assert penalties[0] == 0.0
    collapsed = np.asarray(kernel).mean(axis=3)
    costs = [optflow_jax.cost(collapsed[..., i]) for i in range(collapsed.shape[-1])]
    assert penalties[1] == pytest.approx(3.0 * np.mean(costs), rel=1e-5)


def test_runs_of_a_seed_differ_in_their_settings_alone(clips):
    # So weak a penalty changes nothing; another order, dropout or initialisation would.
    after = {}
    for name, seed, strength in (("none", 3, 0.0), ("weak", 3, 1e-20), ("other", 4, 0.0)):
        settings = config(
            optflow_strength=strength,
            dropout=0.5,
            optimizer="sgd",
            learning_rate=1e-2,
            batch_size=8,
        )
        problem = binary.build(settings, clips)
        executor, order = Executor(problem, plan_for(1)), batches(seed, len(clips.train), 8, 0)
        state = initial_state(problem, seed)
        for _ in range(3):
            state = executor.train(state, order, 1, seed)
        after[name] = np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])
    np.testing.assert_allclose(after["weak"], after["none"], rtol=1e-4, atol=1e-6)
    assert np.abs(after["other"] - after["none"]).max() > 0.01


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
    run_process, tmp_path, clips, monkeypatch
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
    best = filters.read_parameters(workdir, name, seed, "best")
    for which, parameters in (("", last), ("_best", best)):
        newest = Checkpoints(workdir / "checkpoints" / name / f"seed_0{which}").restore(
            initial_state(binary.build(binary.VideoConfig(**settings), clips), 0)
        )[0]
        assert int(newest.step) == (
            2 if not which else summary["runs"][1]["trials"][0]["best"]["step"]
        )
        np.testing.assert_array_equal(newest.params["Conv_0"]["kernel"], parameters["kernel"])
    values = types.SimpleNamespace(
        workdir=str(workdir), run=name, seed=None, which="last", clips=["1"], out=None,
        data_dir=str(tmp_path),
    )  # fmt: skip
    monkeypatch.setattr(filters, "FLAGS", values)
    filters.main()
    assert {path.name for path in (workdir / "filters").iterdir()} == {
        *("filters.png", "filters.gif", "activations_1.png", "activations_1.gif")
    }
    values.clips, values.out = ["500"], str(tmp_path / "nothing")
    with pytest.raises(UserError, match="^--clips: got 500; accepted are numbers below 500"):
        filters.main()
    assert not (tmp_path / "nothing").exists()
    clips = filters.load_dataset(settings)
    assert len(clips.train) == 32
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
    with pytest.raises(NonFiniteError, match="^1 trials did not end: learning_rate=1e"):
        run_main(
            "ucf101_convnet3d", *SMALL, "--sweep=learning_rate:1e30", f"--workdir={tmp_path}/w"
        )
    baseline, diverged = json.loads((tmp_path / "w" / "conclusions.json").read_text())
    assert (diverged["setting"], diverged["chosen"]) == ("learning_rate", "baseline")
    assert (tmp_path / "w" / "sweep_learning_rate.png").exists()


def test_a_dataset_without_validation_trains_but_cannot_be_swept(run_main, tmp_path, monkeypatch):
    def load(own, datasets, size, classes):
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
                "trials": [{"seed": 0, "best": dict.fromkeys(ACCURACIES, 0.1 * index)}],
            }
            for index, run in enumerate(runs)
        ]
        diverged = {"seed": 0, "error": "loss became nan", "test_accuracy": None}
        rows[1]["trials"] = [diverged]
        return {"runs": rows}

    monkeypatch.setattr(binary.common_flags.study, "run_study", run_study)
    monkeypatch.setattr(binary.common_flags.statistics, "table", lambda summary: "")
    with pytest.raises(NonFiniteError, match="^1 trials did not end: loss became nan"):
        run_main("ucf101_convnet3d", *SMALL, "--random_search=3", f"--workdir={tmp_path}/w")
    assert (tmp_path / "w" / "search.png").read_bytes().startswith(b"\x89PNG")
    assert [run.name for run in asked] == ["baseline", "random_0", "random_1", "random_2"]
    baseline, *drawn_runs = asked
    assert baseline.config.optflow_strength == 0
    for name, (low, high) in binary.SEARCHED.items():
        drawn = {getattr(run.config, name) for run in drawn_runs}
        scale = binary.QUICK["learning_rate"] if name == "learning_rate" else 1.0
        assert len(drawn) == 3 and all(0.99 * low <= d / scale <= 1.01 * high for d in drawn)
    said = capsys.readouterr().out
    rate = asked[3].config.learning_rate
    found = json.loads((tmp_path / "w" / "search.json").read_text())
    assert (found["best"], found["settings"]["learning_rate"]) == ("random_2", rate)
    assert f"best by validation (30.00 %): random_2, learning_rate {rate:g}, l2_strength" in said


def test_sweep_and_random_search_exclude_each_other(run_main, tmp_path):
    with pytest.raises(UserError, match="^--sweep and --random_search"):
        run_main(
            "ucf101_convnet3d", *SMALL, "--sweep=dropout:0", "--random_search=2",
            f"--workdir={tmp_path}/w",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric="], "--metric: got none; accepted are l2,"),
        (["--metric=l2,sobolev", "--sweep=dropout:0"], "--metric: got l2,sobolev; with --sweep"),
        (["--random_search=2", "--seed=-1"], "--seed: got -1; accepted is an integer >= 0"),
        (["--random_search=0"], "--random_search: got 0; accepted is an integer >= 1"),
        (["--dataset=digits"], "--dataset: got 'digits'; accepted are auto, moving_digits, ucf101"),
        (["--classes=3"], "--classes: moving_digits has no such option"),
    ],
)
def test_bad_flags(run_main, tmp_path, arguments, message):
    with pytest.raises(UserError) as caught:
        run_main("ucf101_convnet3d", *SMALL, f"--workdir={tmp_path}/w", *arguments)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_interruption_is_one_line_that_tells_how_to_go_on(tmp_path, run_process):
    arguments = (*SMALL, f"--workdir={tmp_path}/w")
    stopped = run_process("ucf101_convnet3d", "interrupt:1", *arguments)
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("error: interrupted; go on with --workdir=")
    resumed = run_process("ucf101_convnet3d", "no", *arguments, "--resume")
    assert resumed.returncode == 0 and "nothing to resume" not in resumed.stdout


def test_resuming_where_nothing_is_says_so(tmp_path, run_main, capsys):
    run_main("ucf101_convnet3d", *SMALL, f"--workdir={tmp_path}/w", "--resume")
    assert f"nothing to resume in {tmp_path}/w" in capsys.readouterr().out
