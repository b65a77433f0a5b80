"""Package files of a few images, in the layouts of the real packages; processes with faults."""

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import json
import os
import pathlib
import pickle
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from experiments.data.prepare import registry

HERE = pathlib.Path(__file__).resolve().parent
TRAIN, TEST = 40, 4  # images of each class


@pytest.fixture
def with_fault(tmp_path):
    """with_fault("kill_at_rename", "prepare_images", ...) runs faults.py; see there.

    The process sees the tiny packages where the test has them.
    """

    def run(fault, action, *arguments, **environment):
        described = tmp_path / "packages.pickle"
        described.write_bytes(pickle.dumps(registry.PACKAGES))
        return script(
            "faults.py", fault, action, *arguments, TINY_PACKAGES=described, **environment
        )

    return run


@pytest.fixture(scope="session")
def tfds_builders():
    """tfds_builders("parquet", folder) runs tfds_builders.py; see there."""

    def run(action, *arguments):
        if action != "parquet" and importlib.util.find_spec("tensorflow") is None:
            pytest.skip("TensorFlow is not installed: pip install 'channelflow[tfds]'")
        return script("tfds_builders.py", action, *arguments)

    return run


def script(name, *arguments, **environment):
    """Runs a script of this folder from the root of the checkout."""
    root = str(HERE.parents[2])
    environment = {name: str(value) for name, value in environment.items()}
    return subprocess.run(
        [sys.executable, str(HERE / name), *map(str, arguments)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": root, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def tiny_packages(tmp_path, monkeypatch):
    """Package files by dataset, which `registry.PACKAGES` describes while the test runs."""
    folder = tmp_path / "packages"
    folder.mkdir()
    archives, packages = {}, {}
    for name, package in registry.PACKAGES.items():
        contents = _contents(name, package.digests)
        packages[name] = dataclasses.replace(
            package,
            megabytes=1,
            digests={file: hashlib.sha256(data).hexdigest() for file, data in contents.items()},
            counts={"train": (TRAIN,) * 10, "test": (TEST,) * 10},
        )
        suffix, archive = (".tgz", _npm) if package.program == "npm" else (".deb", _debian)
        archives[name] = folder / (package.name + suffix)
        archives[name].write_bytes(archive(package.folder, contents))
    monkeypatch.setattr(registry, "PACKAGES", packages)
    return archives


def _contents(name, files):
    """Random images, and labels 0 0 ... 1 1 ... 9, as the files of the package."""
    generator = np.random.default_rng(0)
    contents = {}
    for file in files:
        count = TRAIN if file.startswith(("train", "data_batch")) else TEST
        labels = np.repeat(np.arange(10, dtype=np.uint8), count)
        if file.endswith(".json"):
            contents[file] = json.dumps(labels.tolist()).encode()
        elif file.endswith(".png"):
            rows = 2 * TRAIN if file.startswith("data_batch") else 10 * TEST
            buffer = io.BytesIO()
            pixels = generator.integers(0, 256, (rows, 1024, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "png")
            contents[file] = buffer.getvalue()
        else:
            values = labels
            if "images" in file:
                values = generator.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
            header = bytes([0, 0, 8, values.ndim]) + np.asarray(values.shape, ">i4").tobytes()
            contents[file] = header + values.tobytes()
    return contents


def _npm(folder, contents):
    return _tar("w:gz", {f"{folder}/{file}": data for file, data in contents.items()})


def _debian(folder, contents):
    tree = {f"./{folder}/{file}": gzip.compress(data) for file, data in contents.items()}
    members = {
        "debian-binary": b"2.0\n",
        "control.tar.xz": b"odd",
        "data.tar.xz": _tar("w:xz", tree),
    }
    archive = b"!<arch>\n"
    for name, data in members.items():
        archive += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        archive += data + b"\n" * (len(data) % 2)
    return archive


def _tar(mode, files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for name, data in {**files, "README": b"not used"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()
