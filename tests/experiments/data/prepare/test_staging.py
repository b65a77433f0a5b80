import errno
import os
import pathlib
import subprocess
import sys
import threading

import pytest

from experiments.data import store
from experiments.data.prepare.staging import publish, require_space, staging
from experiments.system.errors import ConfigError

FAULTS = pathlib.Path(__file__).resolve().parents[1] / "faults.py"


def published(tmp_path, content=b"twelve bytes"):
    with staging(str(tmp_path), "made") as folder:
        built = folder / "1.0.0"
        (built / "sub").mkdir(parents=True)
        (built / "sub" / "file").write_bytes(content)
        publish(built, tmp_path / "made" / "1.0.0")
    return tmp_path / "made" / "1.0.0"


def test_a_published_folder_is_whole_and_alone(tmp_path):
    place = published(tmp_path)
    assert (place / "sub" / "file").read_bytes() == b"twelve bytes"
    assert store.damage(place) is None
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_publishing_replaces_what_was_there(tmp_path):
    published(tmp_path)
    place = published(tmp_path, b"another")
    assert (place / "sub" / "file").read_bytes() == b"another"
    assert [path.name for path in place.parent.iterdir()] == ["1.0.0"]


@pytest.mark.parametrize("resume", [False, True])
def test_an_error_leaves_the_folder_only_where_work_can_be_resumed(tmp_path, resume):
    with pytest.raises(RuntimeError), staging(str(tmp_path), "made", resume=resume) as folder:
        (folder / "half").write_bytes(b"half")
        raise RuntimeError
    assert folder.exists() == resume
    with staging(str(tmp_path), "made", resume=resume) as folder:
        assert (folder / "half").exists() == resume
    assert not folder.exists()


def test_a_folder_left_by_a_killed_process_is_cleared(tmp_path):
    left = tmp_path / ".made.incomplete" / "deep"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    with staging(str(tmp_path), "made") as folder:
        assert not list(folder.iterdir())


def test_a_second_process_is_turned_away_until_the_first_ends(tmp_path):
    with subprocess.Popen(
        [sys.executable, str(FAULTS), "none", "hold", str(tmp_path), "made"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(FAULTS.parents[3])},
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ConfigError, match="^data_dir: .*another process is preparing made"):
            with staging(str(tmp_path), "made"):
                pass
        assert {path.name for path in tmp_path.iterdir()} == {".made.incomplete", ".made.lock"}
        with staging(str(tmp_path), "another dataset"):
            pass
        other.communicate(b"\n")
    assert not list(tmp_path.iterdir())
    with staging(str(tmp_path), "made"):
        pass


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path):
    with subprocess.Popen(
        [sys.executable, str(FAULTS), "none", "hold", str(tmp_path), "made"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(FAULTS.parents[3])},
    ) as other:
        assert other.stdout.readline() == b"held\n"
        other.kill()
        other.communicate()
    assert (tmp_path / ".made.lock").exists()
    with staging(str(tmp_path), "made"):
        pass
    assert not list(tmp_path.iterdir())


def test_only_one_of_many_threads_and_turns_is_ever_inside(tmp_path):
    """The lock file is removed at every end; a waiting opener must not lock the removed file."""
    inside, most, turns = [], [], []

    def work():
        while len(turns) < 100:
            try:
                with staging(str(tmp_path), "made"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    turns.append(1)
            except ConfigError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert not list(tmp_path.iterdir())


def test_a_data_dir_that_cannot_be_made_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    long = tmp_path / ("x" * 300)
    for refused in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere", long):
        with pytest.raises(ConfigError, match="^data_dir: got .*(cannot be written|too long)"):
            with staging(str(refused), "made"):
                pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_names_the_flag_and_leaves_nothing(tmp_path, code):
    with pytest.raises(ConfigError, match="^data_dir: got .*, where no space is left"):
        with staging(str(tmp_path), "made") as folder:
            (folder / "half").write_bytes(b"half")
            raise OSError(code, "disk full")
    assert not list(tmp_path.iterdir())


def test_a_disk_too_small_is_noticed_before_any_work(tmp_path):
    with pytest.raises(ConfigError, match="no space is left.*1000000000000 MB are needed"):
        with staging(str(tmp_path), "made") as folder:
            require_space(folder, 10**18)


def test_errors_of_other_files_come_through(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        with staging(str(tmp_path / "data"), "made"):
            open(tmp_path / "elsewhere", "rb")
