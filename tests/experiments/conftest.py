"""Runs a training binary for a test: inside the test process, or in one of its own."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments.cli import common_flags

HERE = pathlib.Path(__file__).resolve().parent


@pytest.fixture
def run_main():
    """run_main("cifar_resnet56", "--trials=2") parses the flags and calls the binary's main."""

    def run(binary, *arguments):
        module = importlib.import_module(f"experiments.{binary}")
        if "metric" not in flags.FLAGS:
            common_flags.define(module.NAME)
        with flagsaver.flagsaver():
            flags.FLAGS([binary, *arguments])
            module.main()

    return run


@pytest.fixture(scope="session")
def run_process():
    """run_process("cifar_resnet56", "step:17", "--trials=2"): the driver in a process of its own.

    Compiling is most of the time of these runs, so it is done without optimisation.
    """

    def run(binary, kill, *arguments):
        return subprocess.run(
            [sys.executable, str(HERE / "driver.py"), binary, kill, *arguments],
            cwd=HERE.parents[1],
            env=os.environ
            | {
                "PYTHONPATH": str(HERE.parents[1]),
                "XLA_FLAGS": "--xla_backend_optimization_level=0",
            },
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
