"""Text files are written whole or not at all."""

import errno
import json
import os

import pytest

from experiments.system.errors import is_disk_full
from experiments.system.files import write_json, write_text


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
    assert is_disk_full(OSError(errno.EFBIG, "File too large"))
    assert is_disk_full(RuntimeError("RESOURCE_EXHAUSTED: No space left on device [path]"))
    wrapped = RuntimeError("saving failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_disk_full(wrapped)
    assert not is_disk_full(OSError(errno.EACCES, "denied"))


def test_write_text_is_whole_and_readable_like_any_new_file(tmp_path):
    write_text(tmp_path / "t", "one\n")
    write_text(tmp_path / "t", "two\n")
    assert (tmp_path / "t").read_text() == "two\n"
    assert os.listdir(tmp_path) == ["t"]
    (tmp_path / "other").write_text("")
    assert (tmp_path / "t").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    write_json(tmp_path / "j", {"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads((tmp_path / "j").read_text()) == {"a": None, "b": [None, 1.5]}
