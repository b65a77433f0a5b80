"""TFDS's own CIFAR-10 builder on an archive of a few images, in a process with TensorFlow."""

import importlib.util
import io
import subprocess
import sys
import tarfile

import numpy as np
import pytest

from experiments import data
from experiments.data import DatasetNotPrepared
from experiments.data.prepare import official
from experiments.system.errors import ConfigError

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
PER_FILE = 12  # images


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """A folder with the official archive's layout, and the images and labels that are in it."""
    folder = tmp_path_factory.mktemp("official")
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (6 * PER_FILE, 3, 32, 32), dtype=np.uint8)
    labels = generator.integers(0, 10, 6 * PER_FILE, dtype=np.uint8)
    files = {"batches.meta.txt": ("\n".join(CLASSES.split()) + "\n\n").encode()}
    for index, name in enumerate([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]):
        rows = slice(index * PER_FILE, (index + 1) * PER_FILE)
        pairs = zip(labels[rows], images[rows], strict=True)
        files[f"{name}.bin"] = b"".join(bytes([label]) + image.tobytes() for label, image in pairs)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return folder, images.transpose(0, 2, 3, 1), labels


def check(data_dir, images, labels):
    """The dataset is the archive's, in its order, and reading it needs no TensorFlow."""
    reading = (
        "import sys; from experiments import data\n"
        f"data.load('cifar10', {str(data_dir)!r})\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", reading], check=True)
    dataset = data.load("cifar10", str(data_dir))
    np.testing.assert_array_equal(dataset.train.examples, images[:60])
    np.testing.assert_array_equal(dataset.train.labels, labels[:60])
    np.testing.assert_array_equal(dataset.test.examples, images[60:])
    np.testing.assert_array_equal(dataset.test.labels, labels[60:])
    assert dataset.class_names == tuple(CLASSES.split())


def damage(data_dir):
    for file in (data_dir / "cifar10").rglob("*train*"):
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DatasetNotPrepared, match="it is damaged"):
        data.load("cifar10", str(data_dir))


def test_the_official_dataset_is_read_in_the_archives_order_and_repaired_by_the_command(
    archive, tmp_path, tfds_builders
):
    archives, images, labels = archive
    ran = tfds_builders("cifar10", archives, tmp_path)  # as a user of TFDS has it: TFRecord files
    assert ran.returncode == 0, ran.stderr
    check(tmp_path, images, labels)
    damage(tmp_path)  # The folder has no checksums; the command finds the damage by reading.

    ran = tfds_builders("cifar10_command", archives, tmp_path, "registered")
    assert ran.returncode == 0, ran.stderr
    assert "cifar10: 60 train + 12 test" in ran.stdout
    assert list(tmp_path.rglob("*array_record*"))
    check(tmp_path, images, labels)
    damage(tmp_path)


def test_an_archive_of_other_content_is_refused_and_leaves_nothing(
    archive, tmp_path, tfds_builders
):
    ran = tfds_builders("cifar10_command", archive[0], tmp_path)
    assert ran.returncode == 2
    (line,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert "--source: got tfds, which cannot prepare cifar10: NonMatching" in line
    assert not [path for path in tmp_path.iterdir() if path.name != "downloads"]


def test_without_tensorflow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^source: got tfds.*pip install -e '.\[tfds\]'"):
        official.prepare("cifar10", str(tmp_path))


def test_the_archive_is_a_folder(tmp_path):
    with pytest.raises(ConfigError, match="^archive: .* the folder that holds"):
        official.prepare("cifar10", str(tmp_path), str(tmp_path / "file.tar.gz"))
