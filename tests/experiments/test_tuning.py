"""--tune: the choice by validation, fresh seeds on all examples, both comparisons; resumable."""

import json

import pytest

from experiments import report
from experiments.cli import main as command
from experiments.cli import tuning
from experiments.system.errors import ConfigError, UserError
from tests.experiments.tiny import EXPERIMENT

TUNE = ("--learning_rate=0.001", "--tune=learning_rate:0.001,0.05", "--tune_trials=1")


def call(*arguments):
    return command.call(EXPERIMENT.main, EXPERIMENT.define, "--dataset=digits", *arguments)


def read(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A tuned study of two metrics: (workdir, the summary that it returned)."""
    path = tmp_path_factory.mktemp("tuned") / "w"
    summary = call("--metric=l2,sobolev", *TUNE, "--trials=2", f"--workdir={path}")
    return path, summary


def test_each_metric_is_tried_at_each_value_on_seeds_of_its_own(study):
    path, summary = study
    tried = read(path / "tune/config.json")["settings"]
    assert list(tried["runs"]) == [
        f"{metric},learning_rate={rate}"
        for metric in ("l2", "sobolev") for rate in ("0.001", "0.05")
    ]  # fmt: skip
    seeds = {t["seed"] for run in summary["runs"] for t in run["trials"]}
    assert seeds == {0, 1} and not seeds & set(tried["seeds"]) and len(tried["seeds"]) == 1


def test_the_best_by_validation_is_chosen_for_each_alike(study):
    path, summary = study
    result = read(path / "tuning.json")
    rows = {run["name"]: run for run in read(path / "tune/summary.json")["runs"]}
    for metric in ("l2", "sobolev"):
        scores = {
            rate: rows[f"{metric},learning_rate={rate:g}"]["trials"][0]["best"][
                "validation_accuracy"
            ]
            for rate in (0.001, 0.05)
        }
        assert result["chosen"][metric]["value"] == max(scores, key=scores.get)
        assert result["chosen"][metric]["validation"]["mean"] == max(scores.values())
    assert result["validation_examples"] == 142  # a tenth of each class of 1,437
    # Every chosen run is trained, with the rate that was chosen.
    runs = {run["name"]: run for run in summary["runs"]}
    assert list(runs)[:2] == ["l2", "sobolev"]
    assert {run["settings"]["learning_rate"] for run in list(runs.values())[:2]} == {0.001}
    for metric, choice in result["chosen"].items():
        assert choice["run"] == f"{metric},learning_rate=0.05"
        assert runs[choice["run"]]["settings"]["learning_rate"] == choice["value"]


def test_the_trials_train_on_all_examples(study):
    path, summary = study
    trial = summary["runs"][0]["trials"][0]
    assert trial["steps"] == 1437 // 64 and trial["train_examples_evaluated"] == 1437
    assert "validation_accuracy" not in trial
    tried = read(path / "tune/summary.json")["runs"][0]["trials"][0]
    assert tried["steps"] == (1437 - 142) // 64


def test_a_tuned_study_goes_on_where_it_stopped(study, monkeypatch):
    path, summary = study
    monkeypatch.setattr(
        "experiments.training.study.attempt", lambda *a, **k: pytest.fail("trained again")
    )
    arguments = ("--metric=l2,sobolev", *TUNE, "--trials=2", f"--workdir={path}")
    with pytest.raises(UserError, match="holds a run already"):
        call(*arguments)
    assert call(*arguments, "--resume")["runs"] == summary["runs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune_trials=2"], "--tune_trials=1, and .* --tune_trials=2 is asked for"),
        (["--tune=learning_rate:0.05"], "begun after --tune=learning_rate:0.001,0.05 "),
        (["--tune=lam:1"], "--tune=lam:1 --tune_trials=1 is asked for"),
    ],
)
def test_another_tuning_is_refused_before_it_is_begun(study, arguments, message):
    path, _ = study
    before = sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file())
    with pytest.raises(UserError, match=message):
        call("--metric=l2,sobolev", *TUNE, *arguments, f"--workdir={path}", "--resume")
    assert before == sorted((p, p.stat().st_mtime_ns) for p in path.rglob("*") if p.is_file())


def test_trials_that_were_begun_without_tuning_are_not_tuned(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="were begun without it"):
        call(*TUNE, f"--workdir={tmp_path}", "--resume")
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_the_report_compares_the_tuned_runs(study, tmp_path):
    path, _ = study
    command.call(report.main, report.define, str(path), f"--out={tmp_path}", several="workdir")
    text = (tmp_path / "table.md").read_text()
    assert "l2 (the same value for all)" in text and "(each at its best)" in text


def test_both_tables_are_printed():
    def run(name, values):
        trials = [{"seed": s, "test_accuracy": v} for s, v in enumerate(values)]
        return {"name": name, "trials": trials, "mean": sum(values) / 2, "std": 0.1, "n": 2}

    runs = [run("l2", [0.5, 0.6]), run("sobolev", [0.6, 0.8]), run("l2,lr=1", [0.75, 0.75])]
    chosen = {"l2": {"value": 1.0, "run": "l2,lr=1"}, "sobolev": {"value": 0.1, "run": "sobolev"}}
    headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
    summary = {"dataset": "d", "headline": headline, "runs": runs}
    same, best = tuning.tables(summary, {"setting": "lr", "chosen": chosen}).split("\n\n")
    assert "the same lr for all" in same and "+15.00" in same
    assert "each at its best lr by validation (l2 1, sobolev 0.1)" in best and "-5.00" in best


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tune=learning_rate"], "tune: got 'learning_rate'; accepted: NAME:VALUE"),
        (["--tune=width:1"], "tune: got 'width:1'; accepted: NAME:VALUE"),
        (["--tune=metric:l2"], "tune: got metric:l2; accepted: another setting"),
        ([*TUNE, "--tune_trials=0"], "tune_trials: got 0"),
        ([*TUNE, "--sweep=lam:1"], "--tune and --sweep: got both"),
        ([*TUNE, "--random_search=1"], "--tune and --random_search: got both"),
        ([*TUNE, f"--seed={tuning.FIRST_SEED}"], "seed: got 1000000"),
        ([*TUNE, "--validation=2"], "validation: got 2.0"),
    ],
)
def test_bad_flags(arguments, message, tmp_path):
    with pytest.raises(UserError) as caught:
        call(*arguments, f"--workdir={tmp_path}/w")
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "w").exists()


def test_a_value_that_is_not_accepted_names_tune(tmp_path):
    with pytest.raises(ConfigError, match="^tune: got -1.0; accepted: learning_rate: a finite"):
        call("--tune=learning_rate:-1", f"--workdir={tmp_path}/w")
