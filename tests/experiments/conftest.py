"""Runs a training binary's `main` inside the test process."""

import importlib

import pytest
from absl import flags
from absl.testing import flagsaver

from experiments import common_flags


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
