"""Two processes that train one trial together, against one process; each has its own folder."""

import contextlib
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
from tests import xla_flags
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
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags.quick()}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def ends(*processes):
    """Each one's exit code, what it printed, and its errors; none is left running."""
    with contextlib.ExitStack() as stack:
        for process in processes:
            stack.enter_context(process)
            stack.callback(process.kill)
        said = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def together(folder, *faults, flags=()):
    """Both processes to their end; the second one has a folder of its own, which stays empty.

    Args:
      folder: of both folders.
      *faults: of the first and of the second process; "no" is none.
      flags: of both.

    Returns:
      For each process its exit code, what it printed, and its errors.
    """
    address = f"--coordinator=localhost:{free_port()}"
    both = [
        start(
            fault, *flags, "--distributed", "--shard=batch", address, "--num_processes=2",
            f"--process_id={number}", f"--workdir={folder / name}",
        )
        for number, (fault, name) in enumerate(zip(faults, ("w", "other"), strict=True))
    ]  # fmt: skip
    outcomes = ends(*both)
    assert not (folder / "other").exists()
    return outcomes


def finished(folder, *flags):
    """Both processes to a good end, of which the first alone speaks."""
    first, second = together(folder, "no", "no", flags=flags)
    assert (first[0], second[0]) == (0, 0), (first, second)
    assert "test frechet distance" in first[1]
    assert all(line.startswith("[Gloo]") for line in second[1].splitlines())
    return first[1]


def outcome(workdir):
    (trial,) = (p for p in workdir.glob("checkpoints/*/seed_0"))
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return read_latest(trial), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    finished(folder)
    return folder / "w"


def test_two_processes_compute_what_one_does(whole, tmp_path):
    ((code, _, errors),) = ends(start("no", f"--workdir={tmp_path}/w"))
    assert code == 0, errors
    (tree, lines), (expected, expected_lines) = outcome(whole), outcome(tmp_path / "w")
    assert [x["step"] for x in lines] == [x["step"] for x in expected_lines]
    for line, other in zip(lines, expected_lines, strict=True):
        for name, value in other.items():
            assert line[name] == (pytest.approx(value, rel=2e-3) if name != "run" else value)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)


def test_a_lost_process_ends_the_other_with_a_line_and_both_go_on_to_the_same_bits(whole, tmp_path):
    first, second = together(tmp_path, "no", "kill_step:8")
    assert (first[0], second[0]) == (1, -signal.SIGKILL), (first, second)
    assert "error: another of the processes has ended; go on with --workdir=" in first[2]
    assert "Traceback" not in first[2]
    assert "going on from step" in finished(tmp_path, "--resume")
    (tree, lines), (expected, expected_lines) = outcome(tmp_path / "w"), outcome(whole)
    assert lines == expected_lines
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_processes_of_different_settings_are_refused(tmp_path):
    address = f"--coordinator=localhost:{free_port()}"
    both = [
        start(
            "no", "--distributed", "--shard=batch", address, "--num_processes=2",
            f"--process_id={number}", f"--workdir={tmp_path}/{number}", *flags,
        )
        for number, flags in enumerate(([], ["--generator_learning_rate=0.5"]))
    ]  # fmt: skip
    for code, _, errors in ends(*both):
        assert code == 2, errors
        assert "error: --distributed: process 1 has other settings or data than" in errors
    assert not (tmp_path / "0").exists() and not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--distributed"], "distributed: got --shard=trials --devices=1; accepted: --shard=batch"),
        (["--process_id=1"], "process_id: got 1; accepted: a value with --distributed only"),
        (
            ["--distributed", "--shard=batch", "--process_id=1"],
            "distributed: got a part of --coordinator, --num_processes, --process_id; accepted: ",
        ),
        (
            [
                "--distributed",
                "--shard=batch",
                "--coordinator=here:x",
                "--num_processes=1",
                "--process_id=0",
            ],
            "coordinator: got here:x; accepted: HOST:PORT",
        ),
        (["--shard=x"], "shard: got 'x'; accepted: trials, batch"),
        (
            ["--batch_statistics=local"],
            "batch_statistics: got local without --shard=batch;",
        ),
        (["--devices=9"], "devices: got 9; accepted: all, or 1 to 8"),
    ],
)
def test_what_is_refused(flags, error, tmp_path):
    experiment = tiny_gan.EXPERIMENT
    with pytest.raises(ConfigError) as raised:
        command.call(experiment.main, experiment.define, *FLAGS, *flags, f"--workdir={tmp_path}/w")
    assert str(raised.value).startswith(error)
    assert not (tmp_path / "w").exists()
