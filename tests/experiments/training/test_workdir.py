"""The workdir: nothing half-written, and no run over another one."""

import errno
import json
import os

import pytest

from experiments.system.errors import UserError, is_disk_full
from experiments.system.files import write_json, write_text
from experiments.training.workdir import Workdir

SETTINGS = {"runs": {"l2": {"lam": 1.0}}, "trials": 2}


def test_resume_needs_the_flag_and_the_same_settings(tmp_path):
    Workdir(tmp_path / "w", SETTINGS)
    with pytest.raises(UserError, match="--resume"):
        Workdir(tmp_path / "w", SETTINGS)
    Workdir(tmp_path / "w", SETTINGS, resume=True)
    other = {"runs": {"l2": {"lam": 2.0}}, "trials": 2}
    for resume in (False, True):
        with pytest.raises(UserError, match=r"--workdir.*runs\.l2\.lam: 1\.0 there, 2\.0 asked"):
            Workdir(tmp_path / "w", other, resume=resume)
    assert json.loads((tmp_path / "w/config.json").read_text())["settings"] == SETTINGS


def test_a_folder_that_cannot_be_written_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="^--workdir: cannot write to"):
        Workdir(tmp_path / "file" / "below", SETTINGS)


def test_a_config_that_is_no_config(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="^--workdir: .* is not the record of a run"):
        Workdir(tmp_path, SETTINGS, resume=True)


def test_metrics_survive_a_line_cut_short(tmp_path):
    workdir = Workdir(tmp_path, SETTINGS)
    for step in (1, 2, 3):
        workdir.append_metrics({"step": step, "loss": float("nan") if step == 2 else 0.5})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')
    assert [line["step"] for line in workdir.read_metrics()] == [1, 2, 3]
    assert workdir.read_metrics()[1]["loss"] is None
    workdir.keep_metrics(lambda line: line["step"] <= 2)
    assert [line["step"] for line in workdir.read_metrics()] == [1, 2]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught:
        write_json(path, {"a": 2})
    assert is_disk_full(caught.value)
    assert json.loads(path.read_text()) == {"a": 1}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_a_full_disk_is_known_by_number_text_and_cause():
    try:
        with open("/dev/full", "w") as file:
            file.write("x")
    except OSError as error:
        assert is_disk_full(error)
    assert is_disk_full(RuntimeError("RESOURCE_EXHAUSTED: No space left on device [path]"))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_disk_full(wrapped)
    assert not is_disk_full(OSError(errno.EACCES, "denied"))


def test_write_text_is_whole(tmp_path):
    write_text(tmp_path / "t", "one\n")
    write_text(tmp_path / "t", "two\n")
    assert (tmp_path / "t").read_text() == "two\n"
    assert os.listdir(tmp_path) == ["t"]
