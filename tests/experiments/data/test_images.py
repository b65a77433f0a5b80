"""Reading image datasets that were prepared: TFDS's own folders, the mirrors, and damaged ones."""

import json
import subprocess
import sys

import numpy as np
import pytest

from experiments import data
from experiments.data import DatasetNotPrepared, tfds_files, tfrecord
from experiments.data.prepare.images import prepare


@pytest.fixture
def prepared(tmp_path, tiny_packages):
    """Fashion-MNIST of 440 images, prepared."""
    prepare("fashion_mnist", str(tmp_path / "data"), str(tiny_packages["fashion_mnist"]))
    return tmp_path / "data"


def load(name, data_dir, **options):
    return data.load(name, str(data_dir), **options)


def make_official(prepared):
    """Makes the mirror a folder as TFDS itself leaves it: another name, no checksums."""
    official = prepared / "fashion_mnist" / "3.0.1"
    official.parent.mkdir()
    (prepared / "fashion_mnist_mirror" / "2020.5.23").rename(official)
    (official / "checksums.json").unlink()
    for file in official.iterdir():
        file.rename(official / file.name.replace("_mirror", ""))
    for file in ("dataset_info.json", "features.json"):
        text = (official / file).read_text()
        (official / file).write_text(text.replace("_mirror", "").replace("2020.5.23", "3.0.1"))
    return official


def truncate_training_files(folder):
    for file in folder.glob("*train*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_folder_of_tfds_is_read_and_damage_is_told(prepared):
    official = make_official(prepared)
    dataset = load("fashion_mnist", prepared)
    assert len(dataset.train) == 400
    assert dataset.data_dir == str(prepared)
    truncate_training_files(official)
    with pytest.raises(DatasetNotPrepared, match=f"{official} cannot be used: it is damaged"):
        load("fashion_mnist", prepared)


def test_the_repair_of_a_damaged_tfds_folder_is_taken(prepared, tiny_packages):
    """The command that the error names writes a mirror; the damaged folder stays."""
    official = make_official(prepared)
    truncate_training_files(official)
    prepare("fashion_mnist", str(prepared), str(tiny_packages["fashion_mnist"]))
    lines = []
    assert len(load("fashion_mnist", prepared, notice=lines.append).train) == 400
    (line,) = lines
    assert line.startswith(f"dataset: skipped: fashion_mnist under {official} cannot be used")
    assert line.endswith("delete the folder skipped")
    # Where both are damaged, both are named.
    truncate_training_files(prepared / "fashion_mnist_mirror" / "2020.5.23")
    with pytest.raises(DatasetNotPrepared, match=f"{official} .*damaged.*_mirror/2020.* damaged"):
        load("fashion_mnist", prepared)


def test_a_file_format_that_is_not_supported_is_not_called_damaged(tmp_path, tfds_builders):
    ran = tfds_builders("parquet", tmp_path)
    assert ran.returncode == 0, ran.stderr
    with pytest.raises(DatasetNotPrepared, match="its file format parquet is not supported; acc"):
        load("mnist", tmp_path)


def test_a_changed_byte_in_a_tfrecord_file_is_damage(prepared):
    """TFDS's folders hold no checksums of their own, but every TFRecord has one."""
    official = make_official(prepared)
    from array_record.python.array_record_module import ArrayRecordReader

    for file in official.glob("*array_record*"):
        reader = ArrayRecordReader(str(file))
        records = [reader.read([index])[0] for index in range(reader.num_records())]
        reader.close()
        tfrecord.write(str(file).replace("array_record", "tfrecord"), records)
        file.unlink()
    info = official / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    before = load("fashion_mnist", prepared)
    assert len(before.train) == 400
    (file,) = official.glob("*train*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # a pixel
    file.write_bytes(content)
    with pytest.raises(DatasetNotPrepared, match="it is damaged: Damaged: .* does not fit its CRC"):
        load("fashion_mnist", prepared)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"fileFormat": 3}'])
def test_damaged_metadata_of_a_tfds_folder_is_told(text, prepared):
    official = make_official(prepared)
    (official / "dataset_info.json").write_text(text)
    with pytest.raises(DatasetNotPrepared, match="cannot be used: "):
        load("fashion_mnist", prepared)


def test_an_incomplete_version_is_not_taken_for_a_dataset(prepared):
    folder = prepared / "fashion_mnist_mirror"
    (folder / "2020.5.23").rename(folder / "incomplete.ABC_2020.5.23")
    assert tfds_files.find("fashion_mnist", str(prepared)) == []
    with pytest.raises(DatasetNotPrepared, match="is not prepared under"):
        load("fashion_mnist", prepared)


def test_the_newest_version_is_read_and_versions_are_numbers(tmp_path):
    for version in ("3.0.2", "3.0.10", "2.9.9", "notes"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    (folder,) = tfds_files.find("mnist", str(tmp_path))
    assert folder.name == "3.0.10"


def test_the_fingerprint_is_that_of_the_stored_files_whichever_folder_they_are_in(
    prepared, tmp_path
):
    dataset = load("fashion_mnist", prepared)
    before = dataset.fingerprint
    prepared.rename(tmp_path / "elsewhere")
    moved = load("fashion_mnist", tmp_path / "elsewhere")
    assert moved.fingerprint == before
    assert moved.data_dir == str(tmp_path / "elsewhere")
    assert moved.with_train_examples(100).fingerprint != before
    # It is read from checksums.json, not computed from the arrays.
    (checksums,) = (tmp_path / "elsewhere").rglob("checksums.json")
    digests = json.loads(checksums.read_text())
    assert dataset.train.digest and any("train" in name for name in digests)
    # Without checksums the arrays are hashed.
    make_official(tmp_path / "elsewhere")
    official = load("fashion_mnist", tmp_path / "elsewhere")
    assert official.train.digest is None
    assert official.fingerprint == load("fashion_mnist", tmp_path / "elsewhere").fingerprint
    np.testing.assert_array_equal(official.train.examples, dataset.train.examples)


def test_reading_imports_no_tensorflow_no_jax_no_absl_and_nothing_that_prepares(prepared):
    script = (
        "import sys; from experiments import data\n"
        f"data.load('fashion_mnist', {str(prepared)!r})\n"
        "unwanted = ('tensorflow', 'apache_beam', 'jax', 'experiments.data.prepare', 'filelock')\n"
        "print([name for name in unwanted if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
