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

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
PER_FILE = 12  # images

# TFDS checks an archive's size and SHA-256: the ones of the tiny archive are registered instead.
SCRIPT = """
import pathlib, sys
import tensorflow_datasets as tfds
from absl import flags
from tensorflow_datasets.core.download import checksums
from experiments import prepare_data

archives, data_dir, file_format, register = sys.argv[1:]
cifar10 = tfds.builder_cls("cifar10")
(url,) = cifar10.url_infos
if register == "yes":
    tiny = checksums.compute_url_info(pathlib.Path(archives) / "cifar-10-binary.tar.gz")
    cifar10.url_infos = {url: tiny}
if file_format == "tfrecord":  # as a user of TFDS has it
    config = tfds.download.DownloadConfig(manual_dir=archives)
    tfds.builder("cifar10", data_dir=data_dir).download_and_prepare(download_config=config)
else:
    arguments = ["--source=tfds", f"--archive={archives}", f"--data_dir={data_dir}"]
    prepare_data.main(flags.FLAGS(["prepare_data", "cifar10", *arguments]))
assert "tensorflow" in sys.modules
"""


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


def prepare(archives, data_dir, file_format="array_record", register="yes"):
    arguments = [str(archives), str(data_dir), file_format, register]
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_the_official_dataset_is_prepared_and_read_in_the_archives_order(
    file_format, archive, tmp_path
):
    archives, images, labels = archive
    ran = prepare(archives, tmp_path, file_format)
    assert ran.returncode == 0, ran.stderr
    assert "cifar10: 60 train + 12 test" in ran.stdout or file_format == "tfrecord"

    reading = (
        "import sys; from experiments import data\n"
        f"data.load('cifar10', {str(tmp_path)!r}, own='cifar10')\n"
        "assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", reading], check=True)
    dataset = data.load("cifar10", str(tmp_path), own="cifar10")
    np.testing.assert_array_equal(dataset.train.examples, images[:60])
    np.testing.assert_array_equal(dataset.train.labels, labels[:60])
    np.testing.assert_array_equal(dataset.test.examples, images[60:])
    np.testing.assert_array_equal(dataset.test.labels, labels[60:])
    assert dataset.class_names == tuple(CLASSES.split())

    for file in (tmp_path / "cifar10").rglob("*train*"):
        file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(DatasetNotPrepared, match="is damaged"):
        data.load("cifar10", str(tmp_path), own="cifar10")


def test_an_archive_of_other_content_is_refused_and_leaves_nothing(archive, tmp_path):
    ran = prepare(archive[0], tmp_path, register="no")
    assert ran.returncode == 1
    assert "prepare_data: --source=tfds: TFDS cannot prepare cifar10: NonMatching" in ran.stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "downloads"]


def test_without_tensorflow_the_error_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"--source: got tfds.*pip install -e '.\[tfds\]'"):
        official.prepare("cifar10", str(tmp_path))


def test_the_archive_is_a_folder(tmp_path):
    with pytest.raises(ValueError, match="--archive: .* the folder that holds"):
        official.prepare("cifar10", str(tmp_path), str(tmp_path / "file.tar.gz"))
