"""Runs a training command for a test: inside the test process, or in one of its own."""

import importlib
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.cli import main as command
from tests import xla_flags

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]


@pytest.fixture
def run_main():
    """run_main("cifar_resnet56", "--trials=2") runs the command here; errors are raised."""

    def run(name, *arguments):
        experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
        return command.call(experiment.main, experiment.define, *arguments)

    return run


@pytest.fixture(scope="session")
def run_process():
    """run_process("cifar_resnet56", "kill_step:17", "--trials=2") runs it in a process of its own.

    See faults.py. Compiling is most of the time of these runs, so it is done quickly.
    """

    def run(name, fault, *arguments):
        module = name if "." in name else f"experiments.{name}"
        return subprocess.run(
            [sys.executable, str(HERE / "faults.py"), module, fault, *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags.quick()},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run
