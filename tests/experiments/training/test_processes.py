"""Two processes that train one trial together, against one process; each has its own folder."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments.cli import main as command
from experiments.system.errors import ConfigError
from experiments.training.checkpoints import read_latest
from tests.experiments.training import tiny_gan

ROOT = pathlib.Path(__file__).resolve().parents[3]
FLAGS = (
    "--dataset=digits", "--epochs=0.1", "--evaluate_every=0.05", "--batch_size=8",
    "--checkpoint_every=3",
)  # fmt: skip


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def start(fault, *flags):
    command = [sys.executable, str(ROOT / "tests/experiments/faults.py")]
    command += ["tests.experiments.training.tiny_gan", fault, *FLAGS, *flags]
    environment = os.environ | {
        "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }  # fmt: skip
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def together(folder, fault="no", *flags):
    """Both processes to their end; the second one has a folder of its own, which stays empty."""
    address = f"--coordinator=localhost:{free_port()}"
    both = [
        start(
            fault, *flags, "--distributed", "--shard=batch", address, "--num_processes=2",
            f"--process_id={number}", f"--workdir={folder / name}",
        )
        for number, name in enumerate(("w", "other"))
    ]  # fmt: skip
    if fault == "no":
        said = [process.communicate(timeout=300) for process in both]
        assert [process.returncode for process in both] == [0, 0], said
        assert "test frechet distance" in said[0][0]
        assert all(line.startswith("[Gloo]") for line in said[1][0].splitlines())
    else:
        for process in both:  # The other process of a killed one is killed by its own count.
            process.communicate(timeout=300)
        assert [process.returncode for process in both] == [-signal.SIGKILL] * 2
    assert not (folder / "other").exists()


def outcome(workdir):
    (trial,) = (p for p in workdir.glob("checkpoints/*/seed_0"))
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return read_latest(trial), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    together(folder)
    return folder / "w"


def test_two_processes_compute_what_one_does(whole, tmp_path):
    alone = start("no", f"--workdir={tmp_path}/w")
    _, errors = alone.communicate(timeout=300)
    assert alone.returncode == 0, errors
    (tree, lines), (expected, expected_lines) = outcome(whole), outcome(tmp_path / "w")
    assert [x["step"] for x in lines] == [x["step"] for x in expected_lines]
    for line, other in zip(lines, expected_lines, strict=True):
        for name, value in other.items():
            assert line[name] == (pytest.approx(value, rel=2e-3) if name != "run" else value)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_two_killed_processes_go_on_to_the_same_bits(whole, tmp_path):
    together(tmp_path, "kill_step:8")
    together(tmp_path, "no", "--resume")
    (tree, lines), (expected, expected_lines) = outcome(tmp_path / "w"), outcome(whole)
    assert lines == expected_lines
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--distributed"], "distributed: got --shard=trials --devices=1; accepted: --shard=batch"),
        (["--process_id=1"], "process_id: got 1; accepted: a value with --distributed only"),
        (
            ["--distributed", "--shard=batch", "--process_id=1"],
            "distributed: got a part of --coordinator, --num_processes, --process_id; accepted: ",
        ),
        (["--shard=x"], "shard: got 'x'; accepted: trials, batch"),
        (["--batch_statistics=local"], "batch_statistics: got local; accepted: local with --shard"),
        (["--devices=9"], "devices: got 9; accepted: all, or 1 to 8"),
    ],
)
def test_what_is_refused(flags, error, tmp_path):
    experiment = tiny_gan.EXPERIMENT
    with pytest.raises(ConfigError) as raised:
        command.call(experiment.main, experiment.define, *FLAGS, *flags, f"--workdir={tmp_path}/w")
    assert str(raised.value).startswith(error)
    assert not (tmp_path / "w").exists()
