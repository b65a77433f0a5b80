import errno
import hashlib
import json
import subprocess
import sys

import pytest

from experiments.data import store


def publish(tmp_path, content=b"twelve bytes"):
    with store.staging(str(tmp_path), "made") as folder:
        built = folder / "1.0.0"
        (built / "sub").mkdir(parents=True)
        (built / "sub" / "file").write_bytes(content)
        store.publish(built, tmp_path / "made" / "1.0.0")
    return tmp_path / "made" / "1.0.0"


def test_a_published_folder_is_whole_and_alone(tmp_path):
    place = publish(tmp_path)
    assert (place / "sub" / "file").read_bytes() == b"twelve bytes"
    assert store.damage(place) is None
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_publishing_replaces_what_was_there(tmp_path):
    publish(tmp_path)
    place = publish(tmp_path, b"another")
    assert (place / "sub" / "file").read_bytes() == b"another"
    assert [path.name for path in place.parent.iterdir()] == ["1.0.0"]


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1])


def flip(file):
    file.write_bytes(b"T" + file.read_bytes()[1:])


@pytest.mark.parametrize(
    "harm, said",
    [
        (truncate, "has 11 bytes instead of 12"),
        (flip, "SHA-256"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_damage_is_found_and_named(tmp_path, harm, said):
    place = publish(tmp_path)
    harm(place / "sub" / "file")
    assert "sub/file" in store.damage(place)
    assert said in store.damage(place)
    # The quick look finds everything but changed contents.
    assert (store.damage(place, contents=False) is None) == (harm is flip)


def test_lost_or_unreadable_checksums_are_damage(tmp_path):
    place = publish(tmp_path)
    (place / store.CHECKSUMS).write_text("{")
    assert "unreadable" in store.damage(place)
    (place / store.CHECKSUMS).unlink()
    assert "missing" in store.damage(place)


def test_checksums_are_those_of_the_files(tmp_path):
    digests = json.loads((publish(tmp_path) / store.CHECKSUMS).read_text())
    assert digests == {
        "sub/file": {"size": 12, "sha256": hashlib.sha256(b"twelve bytes").hexdigest()}
    }


@pytest.mark.parametrize("resume", [False, True])
def test_an_error_leaves_the_folder_only_where_work_can_be_resumed(tmp_path, resume):
    with pytest.raises(RuntimeError), store.staging(str(tmp_path), "made", resume=resume) as folder:
        (folder / "half").write_bytes(b"half")
        raise RuntimeError
    assert folder.exists() == resume
    with store.staging(str(tmp_path), "made", resume=resume) as folder:
        assert (folder / "half").exists() == resume
    assert not folder.exists()


def test_a_folder_left_by_a_killed_process_is_cleared(tmp_path):
    left = tmp_path / ".made.incomplete" / "deep"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"half")
    with store.staging(str(tmp_path), "made") as folder:
        assert not list(folder.iterdir())


def test_a_second_process_is_turned_away_until_the_first_ends(tmp_path):
    code = (
        "import sys; from experiments.data import store\n"
        f"with store.staging({str(tmp_path)!r}, 'made'): print('held', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="--data_dir: another process is preparing made"):
            with store.staging(str(tmp_path), "made"):
                pass
        other.communicate(b"\n")
    with store.staging(str(tmp_path), "made"):
        pass


def test_a_data_dir_that_cannot_be_made_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    for refused in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nowhere"):
        with pytest.raises(ValueError, match="--data_dir: got .*cannot be written"):
            with store.staging(str(refused), "made"):
                pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_names_the_flag_and_leaves_nothing(tmp_path, code):
    with pytest.raises(ValueError, match="--data_dir: no space left"):
        with store.staging(str(tmp_path), "made") as folder:
            (folder / "half").write_bytes(b"half")
            raise OSError(code, "disk full")
    assert not list(tmp_path.iterdir())


def test_a_disk_too_small_is_noticed_before_any_work(tmp_path):
    with pytest.raises(ValueError, match="--data_dir: no space left.*1000000000000 MB are needed"):
        with store.staging(str(tmp_path), "made") as folder:
            store.require_space(folder, 10**18)


def test_errors_of_other_files_come_through(tmp_path):
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        with store.staging(str(tmp_path / "data"), "made"):
            open(tmp_path / "elsewhere", "rb")
