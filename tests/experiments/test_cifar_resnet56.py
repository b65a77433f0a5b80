"""The binary from flags to figures, on the embedded digits with a small network."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import data
from experiments.cifar_resnet56 import CifarConfig, build
from experiments.cli import main as command
from experiments.system.errors import NonFiniteError, UserError
from experiments.training.checkpoints import read_latest
from experiments.training.execution import Executor
from experiments.training.settings import with_settings
from tests.experiments import tiny

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = "tests.experiments.tiny"
SMALL = ("--dataset=digits", "--depth=8", "--epochs=0.2", "--evaluate_every=0.1")


def test_trials_of_two_metrics_leave_everything(run_main, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "w"
    arguments = (
        *SMALL, "--metric=l2,sobolev", "--trials=2", "--seed=4", f"--workdir={workdir}",
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["cifar_resnet56", *arguments])
    run_main("cifar_resnet56", *arguments)
    printed = capsys.readouterr().out
    summary = json.loads((workdir / "summary.json").read_text())
    assert {"dataset", "model", "runs", "images_per_second", "device", "wall_seconds"} <= set(
        summary
    )
    assert (summary["dataset"], summary["model"]) == ("digits", "resnet8")
    assert [run["metric"] for run in summary["runs"]] == ["l2", "sobolev"]
    test_size = len(data.load("digits", preferred="cifar10").test)
    for run in summary["runs"]:
        assert [t["seed"] for t in run["trials"]] == [4, 5]
        for trial in run["trials"]:
            assert trial["steps"] == 9
            count = trial["test_accuracy"] * test_size
            assert count == pytest.approx(round(count))  # a fraction of the whole test set
        values = [t["test_accuracy"] for t in run["trials"]]
        assert run["mean"] == pytest.approx(np.mean(values))
        assert run["std"] == pytest.approx(np.std(values, ddof=1)) and run["n"] == 2
    (comparison,) = summary["comparison"]
    assert (comparison["run"], comparison["baseline"], comparison["n"]) == ("sobolev", "l2", 2)

    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(x["run"], x["seed"], x["step"]) for x in lines] == [
        (run, seed, step) for run in ("l2", "sobolev") for seed in (4, 5) for step in (5, 9)
    ]
    config = json.loads((workdir / "config.json").read_text())
    assert config["settings"]["runs"]["sobolev"]["lam"] == 1.0
    assert "lam" not in config["settings"]["runs"]["l2"]
    assert config["command"][1:] == list(arguments)
    assert config["environment"]["versions"]["jax"] == jax.__version__
    for name in ("accuracy.png", "loss.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    assert list(workdir.glob("tensorboard/sobolev/seed_5/events*"))
    assert "error reduced" in printed and str(workdir) in printed

    run_main("cifar_resnet56", *arguments, "--resume")
    again = json.loads((workdir / "summary.json").read_text())
    assert again["runs"] == summary["runs"]


def test_metrics_share_the_initialisation_of_a_seed():
    digits = data.load("digits", preferred="cifar10")
    states = []
    for metric in ("l2", "sobolev"):
        config = with_settings(CifarConfig(), {"depth": 8, "metric": metric})
        task, length = build(config, digits)
        states.append(Executor(task, digits, length.batch_size).initial_state(0).state)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_non_finite_loss_stops_the_trial_and_keeps_the_last_good_checkpoint(
    run_process, tmp_path
):
    """Of any training command: a small network will do, here and below."""
    done = run_process(
        TINY, "no", "--dataset=digits", "--epochs=0.2", "--metric=l2", "--schedule=step",
        "--learning_rate=1e30", "--checkpoint_every=1", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert done.returncode == 1
    assert "training loss became nan" in done.stderr and "learning_rate" in done.stderr
    summary = json.loads((tmp_path / "w/summary.json").read_text())
    assert "became nan" in summary["runs"][0]["trials"][0]["error"]
    kept = read_latest(tmp_path / "w/checkpoints/l2/seed_0")
    assert np.isfinite(kept["sums"]["loss"])


@pytest.mark.parametrize(
    "flags",
    [
        ("--learning_rate=100",),
        ("--metric=sobolev", "--lam=1e37"),
        ("--metric=reweighted_l2", "--lam=1e38", "--learning_rate=1"),
        ("--learning_rate=1e30",),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_a_network_that_is_not_made_of_numbers_is_no_result(flags, tmp_path):
    experiment = tiny.EXPERIMENT
    with pytest.raises(NonFiniteError, match="became (nan|inf)"):
        command.call(
            experiment.main, experiment.define, "--dataset=digits", "--epochs=1", *flags,
            f"--workdir={tmp_path}/w",
        )  # fmt: skip
    (run,) = json.loads((tmp_path / "w/summary.json").read_text())["runs"]
    assert run["n"] == 0 and run["mean"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric=sobolef"], "metric: got 'sobolef'; accepted: l2, "),
        (["--metric=sobolev", "--lam=-1"], "lam: got -1.0"),
        (["--metric=reweighted_l2", "--form=equation", "--lam=0"], "lam: got 0.0"),
        (["--batch_size=5000"], "batch_size: got 5000; accepted: 1 to 1437"),
        (["--preset=fast"], "preset: got 'fast'; accepted: quick, paper"),
        (["--dataset=imagenet"], "dataset: got 'imagenet'; accepted: auto, "),
        (["--trials=0"], "trials: got 0"),
        (["--depth=9"], "depth: got 9; accepted: 8, 14"),
        (["--depth=60000002"], "depth: got 60000002; accepted: 8, 14"),
        (["--metric=l2,l2"], "metric: got l2 twice"),
        (["--resume"], "resume: got no --workdir"),
        (["--resume", "--workdir="], "workdir: got an empty name"),
        (["--workdir=/dev/null/w"], "workdir: got /dev/null/w; accepted: a folder"),
        (["--epochs=1e12"], "epochs: got 1000000000000.0; accepted: at most"),
        (["--schedule=step", "--decay_epochs=1e12"], "decay_epochs: got 1000000000000.0"),
        (["--seed=2147483648"], "seed: got 2147483648"),
        (["--trial_range=2:4"], "trial_range: got 2:4; accepted: FIRST:LAST"),
    ],
)
def test_bad_flags(run_main, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run_main("cifar_resnet56", "--dataset=digits", "--depth=8", *arguments)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cifar_resnet56", "--dataset=cifar10",
         f"--data_dir={tmp_path}/none"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "python -m experiments.prepare_data cifar10" in done.stderr


def test_a_full_disk_is_one_line_and_resuming_repairs_it(tmp_path, run_process):
    arguments = ("--dataset=digits", "--epochs=0.2", f"--workdir={tmp_path}/w")
    full = run_process(TINY, "full:3", *arguments)
    assert full.returncode == 1
    assert full.stderr.startswith("error: no space left") and "--resume" in full.stderr
    assert full.stderr.count("\n") == 1
    assert "Traceback" not in full.stderr
    resumed = run_process(TINY, "no", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "w/summary.json").read_text())["runs"][0]["n"] == 1
