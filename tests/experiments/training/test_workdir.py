"""The workdir: one process, no run over another one, damage told or repaired."""

import json
import os
import subprocess
import sys

import pytest

from experiments.system.errors import UserError
from experiments.training.workdir import Workdir

SETTINGS = {"dataset": "digits", "seeds": [0, 1], "runs": {"l2": {"lam": 1.0}}}


def record(step, **values):
    return {"run": "l2", "seed": 0, "step": step, "epoch": step / 10, **values}


def opened(path, settings=SETTINGS, **options):
    with Workdir(path, settings, **options) as workdir:
        return workdir


def test_resume_needs_the_flag_and_the_same_settings(tmp_path):
    opened(tmp_path / "w")
    with pytest.raises(UserError, match="--resume"):
        opened(tmp_path / "w")
    opened(tmp_path / "w", resume=True)
    other = SETTINGS | {"runs": {"l2": {"lam": 2.0}}}
    for resume in (False, True):
        with pytest.raises(UserError, match=r"workdir.*l2\.lam: 1\.0 there, 2\.0 asked"):
            opened(tmp_path / "w", other, resume=resume)
    assert json.loads((tmp_path / "w/config.json").read_text())["settings"] == SETTINGS


@pytest.mark.parametrize(
    ("before", "begun"),
    [
        ({"begun": "2026-01-01T00:00:00+00:00"}, "2026-01-01T00:00:00+00:00"),
        ({"environment": {"date": "2026-02-01T00:00:00+00:00"}}, "2026-02-01T00:00:00+00:00"),
        (
            {"begun": "2026-01-01T00:00:00+00:00", "environment": {"date": "2026-02-01"}},
            "2026-01-01T00:00:00+00:00",
        ),
    ],
)
def test_when_it_was_begun_is_kept(tmp_path, before, begun):
    (tmp_path / "config.json").write_text(json.dumps({"settings": SETTINGS, **before}))
    for date in ("2026-03-01", "2026-04-01"):
        opened(tmp_path, resume=True, record={"environment": {"date": date}})
        found = json.loads((tmp_path / "config.json").read_text())
        assert (found["begun"], found["environment"]["date"]) == (begun, date)


def test_a_study_may_grow_and_not_shrink(tmp_path):
    opened(tmp_path)
    more = SETTINGS | {"seeds": [0, 1, 2], "runs": SETTINGS["runs"] | {"sobolev": {"lam": 1.0}}}
    opened(tmp_path, more, resume=True)
    with pytest.raises(UserError, match="seeds: 2 there, not asked for, runs: sobolev there"):
        opened(tmp_path, resume=True)
    with pytest.raises(UserError, match="dataset: digits there, cifar10 asked"):
        opened(tmp_path, more | {"dataset": "cifar10"}, resume=True)


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path):
    (tmp_path / "file").write_text("")
    for bad in (tmp_path / "file" / "below", "/proc/w", "~no_such_user/w"):
        with pytest.raises(UserError, match="^workdir: got .*accepted: a folder"):
            opened(bad)


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": 3}', "\x00\xff"])
def test_a_config_that_is_no_config(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="^workdir: .* is not the record of a run"):
        opened(tmp_path, resume=True)


def test_results_without_a_config_need_resume(tmp_path):
    opened(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(UserError, match="holds results but no config.json"):
        opened(tmp_path)
    said = []
    opened(tmp_path, resume=True, notice=said.append)
    assert "config.json is missing" in said[0]


def test_a_second_process_is_told_who_holds_the_folder(tmp_path):
    with Workdir(tmp_path, SETTINGS):
        script = (
            "import sys; from experiments.training.workdir import Workdir\n"
            f"Workdir(sys.argv[1], {SETTINGS!r}, resume=True)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
        )
        assert f"is in use by process {os.getpid()} on " in done.stderr.splitlines()[-1]
    opened(tmp_path, resume=True)


def test_metrics_survive_lines_that_are_damaged_and_the_damage_is_told(tmp_path):
    with Workdir(tmp_path, SETTINGS) as workdir:
        for step in (1, 2, 3):
            workdir.append_metrics(record(step, loss=float("nan") if step == 2 else 0.5))
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'[1]\n\x00\xff\n{"step": 4, "lo')
    said = []
    workdir = opened(tmp_path, resume=True, notice=said.append)
    assert "3 unreadable lines removed" in said[0]
    assert [line["step"] for line in workdir.read_metrics()] == [1, 2, 3]
    assert workdir.read_metrics()[1]["loss"] is None
    workdir.replace_metrics("l2", 0, [record(1)])
    assert [line["step"] for line in workdir.read_metrics("l2", 0)] == [1]


@pytest.mark.parametrize("content", ["", "[]", "null", '{"runs": [{}]}', '{"runs": []}', "\x00"])
def test_a_damaged_summary_is_set_aside_and_told(tmp_path, content):
    said = []
    with Workdir(tmp_path, SETTINGS, notice=said.append) as workdir:
        workdir.summary_path.write_text(content)
        assert workdir.read_summary() is None
    assert "summary.json is damaged; moved to summary.json.damaged" in said[0]
    assert (tmp_path / "summary.json.damaged").read_text() == content


def test_folders_in_the_place_of_files_and_files_in_the_place_of_folders(tmp_path):
    opened(tmp_path)
    (tmp_path / "metrics.jsonl").mkdir()
    (tmp_path / "summary.json").mkdir()
    said = []
    workdir = opened(tmp_path, resume=True, notice=said.append)
    assert workdir.read_summary() is None and workdir.read_metrics() == []
    assert len(said) == 2
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(UserError, match="checkpoints is not a folder"):
        opened(tmp_path, resume=True)


def test_what_a_killed_write_left_is_removed(tmp_path):
    opened(tmp_path)
    (tmp_path / ".metrics.jsonl.abc.unfinished").write_text("half")
    opened(tmp_path, resume=True)
    assert not list(tmp_path.glob(".metrics*"))
