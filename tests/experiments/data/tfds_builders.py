"""Writes folders as TFDS's own builders do, in a process of its own that has TensorFlow.

python tfds_builders.py cifar10 ARCHIVES DATA_DIR     the official builder, TFRecord files
python tfds_builders.py cifar10_command ARCHIVES DATA_DIR [registered]   by prepare_data
python tfds_builders.py ucf101 LISTS ROOT      ROOT/array_record and ROOT/tfrecord
python tfds_builders.py parquet DATA_DIR       a `mnist` folder in parquet files
"""

import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums


def register(archives):
    """Has TFDS accept the tiny archive: it checks the size and SHA-256 of what it downloads."""
    builder = tfds.builder_cls("cifar10")
    (url,) = builder.url_infos
    tiny = checksums.compute_url_info(pathlib.Path(archives) / "cifar-10-binary.tar.gz")
    builder.url_infos = {url: tiny}


def cifar10(archives, data_dir):
    """Prepares CIFAR-10 as a user of TFDS does."""
    register(archives)
    config = tfds.download.DownloadConfig(manual_dir=archives)
    builder = tfds.builder("cifar10", data_dir=data_dir, file_format="tfrecord")
    builder.download_and_prepare(download_config=config)


def cifar10_command(archives, data_dir, registered=""):
    """Prepares CIFAR-10 by the command prepare_data."""
    from experiments import prepare_data
    from experiments.cli import main as cli_main

    if registered:
        register(archives)
    sys.argv = ["prepare_data", "cifar10", "--source=tfds"]
    sys.argv += [f"--archive={archives}", f"--data_dir={data_dir}"]
    cli_main.run(prepare_data.main, prepare_data.define, accepts=prepare_data.NAMES)


def ucf101(lists, root):
    """The official UCF-101 builder: its keys, features and splits.

    Only the frames are made here; it would call an ffmpeg program on downloaded files.
    """
    from tensorflow_datasets.video import ucf101

    class Ucf101(ucf101.Ucf101, skip_registration=True):
        name = "ucf101"

        def _split_generators(self, dl_manager):
            return {
                split: self._generate_examples(pathlib.Path(lists) / f"{split}list01.txt")
                for split in ("train", "test")
            }

        def _generate_examples(self, path):
            for line in sorted(path.read_text().splitlines()):
                label, name = line.split(" ")[0].split("/")
                group, clip = int(name.split("_")[2][1:]), int(name.split("_")[3][1:3])
                level = 100 * (label == "ApplyLipstick") + 6 * group + 2 * clip
                video = np.full((20, 256, 256, 3), level, np.uint8)
                video[:, :, 128:] = 10 * np.arange(20)[:, None, None, None]
                key = name.replace("HandStandPushups", "HandstandPushups")
                yield key, {"video": video, "label": label}

    for file_format in ("array_record", "tfrecord"):
        data_dir = pathlib.Path(root) / file_format
        builder = Ucf101(config="ucf101_1_256", data_dir=data_dir, file_format=file_format)
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=2))


def parquet(data_dir):
    """A folder of MNIST, two images a split, in a file format that is not supported."""

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            features = {
                "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples() for split in ("train", "test")}

        def _generate_examples(self):
            for key in range(2):
                yield key, {"image": np.zeros((28, 28, 1), np.uint8), "label": key}

    Mnist(data_dir=data_dir, file_format="parquet").download_and_prepare()


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    {function.__name__: function for function in (cifar10, cifar10_command, ucf101, parquet)}[
        action
    ](*arguments)
    assert action == "parquet" or "tensorflow" in sys.modules
