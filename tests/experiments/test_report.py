"""The command from workdirs to tables and figures; it trains nothing."""

import json

import pytest

from experiments import report
from experiments.cli import main as command
from experiments.system.errors import UserError

HEADLINE = {"name": "accuracy", "higher_is_better": True, "percent": True}


def write(folder, runs, optimizer="sgd"):
    """A workdir as a training command leaves it."""
    seeds = sorted({seed for values in runs.values() for seed in values})
    recorded = {
        run: {"metric": run, "model": "resnet8", "optimizer": optimizer, "batch_size": 8}
        for run in runs
    }
    rows = [
        {"name": run, "trials": [{"seed": s, "test_accuracy": v} for s, v in values.items()]}
        for run, values in runs.items()
    ]
    lines = [
        {"run": run, "seed": s, "step": e, "epoch": e, "train_accuracy": v, "test_accuracy": v}
        for run, values in runs.items() for s, v in values.items() for e in (1, 2)
    ]  # fmt: skip
    folder.mkdir()
    data = {"name": "digits", "fingerprint": "f"}
    settings = {"experiment": "x", "dataset": data, "seeds": seeds, "runs": recorded}
    (folder / "config.json").write_text(json.dumps({"settings": settings}))
    (folder / "summary.json").write_text(json.dumps({"headline": HEADLINE, "runs": rows}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    return str(folder)


def call(*arguments):
    command.call(report.main, report.define, *arguments, several="workdir")


def test_tables_and_figures_of_two_parts_and_another_optimizer(tmp_path, capsys):
    a = write(tmp_path / "a", {"l2": {0: 0.5, 1: 0.6}, "sobolev": {0: 0.7, 1: 0.7}})
    b = write(tmp_path / "b", {"l2": {2: 0.5}, "sobolev": {2: 0.9}})
    adam = write(tmp_path / "c", {"l2": {0: 0.5}}, "adam")
    out = tmp_path / "out"
    call(a, b, adam, f"--out={out}")
    names = {path.name for path in out.iterdir()}
    figures = {"histogram", "curves_sgd", "curves_adam"}
    assert names == {"table.md", "table.csv", "table.tex"} | {
        f"{name}.{kind}" for name in figures for kind in ("png", "pdf")
    }
    text = (out / "table.md").read_text()
    assert "## resnet8, sgd, batch 8, digits" in text and "| l2 | 53.33 |" in text
    assert text in capsys.readouterr().out


def test_a_report_of_nothing(tmp_path):
    with pytest.raises(UserError, match="^workdir: got none; accepted: one or more"):
        call(f"--out={tmp_path}/out")
    with pytest.raises(UserError, match=r"^workdir: got .*no config\.json"):
        call(str(tmp_path), f"--out={tmp_path}/out")
    assert not (tmp_path / "out").exists()


def test_names_may_stand_among_the_flags(tmp_path):
    a = write(tmp_path / "a", {"l2": {0: 0.5}})
    call(f"--out={tmp_path}/out", a)
    assert (tmp_path / "out/table.md").exists()
