"""The engine trains a task that it has never seen, kills and all, without a change to it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import data
from experiments.cli import main as command
from experiments.training.checkpoints import read_latest
from experiments.training.config import Length
from experiments.training.study import Run, train
from tests.experiments.training import autoencoder

FLAGS = ("--dataset=digits", "--checkpoint_every=4")


def outcome(workdir):
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    (trial,) = workdir.glob("checkpoints/*/seed_0")
    return read_latest(trial), lines


def test_it_is_killed_and_resumes_to_the_same_bits(tmp_path, run_process):
    module, headline = "tests.experiments.training.tiny_gan", "frechet_distance"
    whole = run_process(module, "no", *FLAGS, f"--workdir={tmp_path}/whole")
    assert whole.returncode == 0, whole.stderr
    assert f"test {headline.replace('_', ' ')} on " in whole.stdout
    killed = run_process(module, "kill_step:10", *FLAGS, f"--workdir={tmp_path}/w")
    assert killed.returncode == -signal.SIGKILL
    resumed = run_process(module, "no", *FLAGS, f"--workdir={tmp_path}/w", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "going on from step" in resumed.stdout
    (tree, lines), (expected, expected_lines) = map(outcome, (tmp_path / "w", tmp_path / "whole"))
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert lines == expected_lines and len(lines) > 2
    for kind in ("png", "pdf"):
        assert (tmp_path / "w" / f"{headline}.{kind}").stat().st_size > 1000
    assert not (tmp_path / "w" / "loss.png").exists()  # They have no metric of that name.


@pytest.mark.parametrize("fault", ["interrupt:1", "swallowed:1"])
def test_interruption_is_one_line_that_tells_how_to_go_on(tmp_path, run_process, fault, capsys):
    arguments = (*FLAGS, "--epochs=0.3", f"--workdir={tmp_path}/w")
    stopped = run_process("tests.experiments.training.autoencoder", fault, *arguments)
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr
    assert stopped.stderr.splitlines()[-1].startswith("error: interrupted; go on with --workdir=")
    experiment = autoencoder.EXPERIMENT
    command.call(experiment.main, experiment.define, *arguments, "--resume")
    assert "nothing to resume" not in capsys.readouterr().out


def test_it_is_swept_and_the_least_error_is_chosen(tmp_path, capsys):
    experiment = autoencoder.EXPERIMENT
    summary = command.call(
        experiment.main, experiment.define, "--dataset=digits", "--validation=0.2", "--trials=2",
        "--epochs=0.3", "--sweep=rate:1e-5,1e-2", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert summary["headline"] == {"name": "mse", "higher_is_better": False, "percent": False}
    rows = json.loads((tmp_path / "w/conclusions.json").read_text())
    validated = {
        run["name"]: np.mean([t["best"]["validation_mse"] for t in run["trials"]])
        for run in summary["runs"]
    }
    assert rows[1]["chosen"] == min(validated, key=validated.get)
    assert validated["rate=1e-05"] == max(validated.values())
    assert (tmp_path / "w/sweep_rate.png").exists()
    best = summary["runs"][0]["trials"][0]["best"]
    assert best["validation_mse"] > 0 and set(best) == {"step", "validation_mse", "test_mse"}
    assert "mse, chosen by validation" in capsys.readouterr().out


def test_training_is_a_function_that_needs_no_flags(tmp_path):
    dataset = data.load("digits", preferred="cifar10")
    config = autoencoder.AutoencoderConfig(length=Length(64, epochs=0.2, evaluate_every=0.1))
    runs = [Run("wide", config), Run("narrow", dataclasses.replace(config, width=2))]
    said = []
    summary = train(
        "mine", runs, dataset, autoencoder.build, workdir=tmp_path, seeds=[3, 5],
        notice=said.append,
    )  # fmt: skip
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert [t["seed"] for t in summary["runs"][1]["trials"]] == [3, 5]
    record = json.loads((tmp_path / "config.json").read_text())
    assert record["settings"]["runs"]["narrow"] == {
        "width": 2, "rate": 1e-3, "batch_size": 64, "epochs": 0.2, "evaluate_every": 0.1,
    }  # fmt: skip
    assert not list(tmp_path.glob("*.png"))  # Figures are the caller's to draw.
    # More seeds and more runs are the same study, enlarged; what is finished is not trained again.
    more = [*runs, Run("wider", dataclasses.replace(config, width=9))]
    again = train(
        "mine", more, dataset, autoencoder.build, workdir=tmp_path, seeds=[3, 4, 5], resume=True
    )
    assert [len(run["trials"]) for run in again["runs"]] == [3, 3, 3]
    assert again["runs"][0]["trials"][0] == summary["runs"][0]["trials"][0]


@pytest.mark.parametrize(
    ("seeds", "message"),
    [([], "seeds: got none"), ([2**31], "seed: got 2147483648"), ([1, 1], "seeds: got")],
)
def test_seeds_that_are_not_accepted_leave_nothing(tmp_path, seeds, message):
    dataset = data.load("digits", preferred="cifar10")
    with pytest.raises(ValueError, match=f"^{message}"):
        train(
            "mine", [Run("a", autoencoder.AutoencoderConfig())], dataset, autoencoder.build,
            workdir=tmp_path / "w", seeds=seeds,
        )  # fmt: skip
    assert not (tmp_path / "w").exists()


def test_a_file_above_its_size_limit_is_one_line(tmp_path, run_process):
    module = "tests.experiments.training.autoencoder"
    done = run_process(module, "large:20000", *FLAGS, f"--workdir={tmp_path}/w")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on a disk that is written to, or a file ab")
    assert done.stderr.count("\n") == 1 and "--resume" in done.stderr


def test_training_goes_on_where_nobody_reads_its_output(tmp_path):
    module = "tests.experiments.training.autoencoder"
    flags = [*FLAGS, f"--workdir={tmp_path}/w"]
    with subprocess.Popen(
        [sys.executable, "tests/experiments/faults.py", module, "no", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.getcwd()},
    ) as process:  # fmt: skip
        assert process.stdout.readline().startswith(b"results, checkpoints and figures:")
        process.stdout.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors and (tmp_path / "w/summary.json").exists()
