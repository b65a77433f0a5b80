"""Directions and layers in one grid (figures 5 and 10 of the paper): runs, bars, choice."""

import pytest

from experiments.cli import main as command
from tests.experiments.tiny import EXPERIMENT

GRID = ("--sweep=direction:output,input", "--sweep=layers:conv,all", "--grid", "--epochs=0.1")


def call(*arguments):
    return command.call(EXPERIMENT.main, EXPERIMENT.define, "--dataset=digits", *arguments)


def test_a_grid_of_directions_and_layers(tmp_path, monkeypatch, capsys):
    kept = {}
    monkeypatch.setattr(
        "experiments.figures.sweep.save", lambda figure, path: kept.update({path.name: figure})
    )
    summary = call("--metric=sobolev", *GRID, "--validation=0.2", f"--workdir={tmp_path}/w")
    assert [run["name"] for run in summary["runs"]] == [
        "baseline", "direction=output,layers=all", "direction=input,layers=conv",
        "direction=input,layers=all",
    ]  # fmt: skip
    assert [(r["settings"]["direction"], r["settings"]["layers"]) for r in summary["runs"]] == [
        ("output", "conv"), ("output", "all"), ("input", "conv"), ("input", "all"),
    ]  # fmt: skip
    (figure,) = kept.values()
    assert list(kept) == ["runs.png"]
    (axis,) = figure.axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == [
        "baseline: direction=output,layers=conv", *(r["name"] for r in summary["runs"][1:])
    ]  # fmt: skip
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == pytest.approx([100 * run["mean"] for run in summary["runs"]])
    # One choice among all combinations, not one for the setting that is named first.
    assert "\ncombination " in capsys.readouterr().out


def test_metrics_and_matched_norms_in_one_grid_without_validation(tmp_path, capsys):
    summary = call(
        "--metric=l2,sobolev", "--sweep=match_norm:false,true", "--grid", "--epochs=0.1",
        f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert [run["name"] for run in summary["runs"]] == [
        "baseline", "metric=sobolev,match_norm=false", "metric=sobolev,match_norm=true",
    ]  # fmt: skip
    assert "no validation examples" in capsys.readouterr().out
    assert (tmp_path / "w/runs.png").exists()  # bars are of the test split


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_baselines_are_trained_saved_and_read_back(tmp_path, optimizer):
    arguments = (
        f"--optimizer={optimizer}", "--metric=centralization", "--epochs=0.2",
        f"--workdir={tmp_path}/w",
    )  # fmt: skip
    summary = call(*arguments)
    assert summary["runs"][0]["settings"]["optimizer"] == optimizer
    (tmp_path / "w/summary.json").unlink()
    again = call(*arguments, "--resume")  # from the last checkpoint
    rows = [s["runs"][0]["trials"][0] for s in (summary, again)]
    assert rows[0]["test_accuracy"] == rows[1]["test_accuracy"]
