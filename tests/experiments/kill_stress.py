"""Kills training commands at random moments and compares what they end with. Run by hand:

    python -m tests.experiments.kill_stress --kills=100 --out=DIR

Each of three commands (classification, video, GAN) is first run without interruption. Then it is
started again and again in one workdir and killed (SIGKILL) after a random time, until it ends by
itself. Compared with the uninterrupted run: every array of the last checkpoint to the bit, every
line of metrics.jsonl but its images per second, and the points in TensorBoard's files.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import jax
import numpy as np

from experiments.training.checkpoints import read_latest
from tests import xla_flags

ROOT = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = {
    "experiments.cifar_resnet56": (
        "--dataset=digits", "--depth=8", "--metric=sobolev", "--epochs=0.6",
        "--evaluate_every=0.05", "--checkpoint_every=3",
    ),
    "experiments.ucf101_convnet3d": (
        "--dataset=moving_digits", "--size=16", "--train_examples=96", "--epochs=4",
        "--evaluate_every=0.5", "--checkpoint_every=2", "--optflow_strength=1",
    ),
    "tests.experiments.training.tiny_gan": (
        "--dataset=digits", "--epochs=1", "--evaluate_every=0.05", "--checkpoint_every=3",
    ),
}  # fmt: skip


def start(module, flags, workdir, resume):
    command = [sys.executable, str(ROOT / "tests/experiments/faults.py"), module, "no", *flags]
    command += [f"--workdir={workdir}", *(["--resume"] if resume else [])]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XLA_FLAGS": xla_flags.quick()}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def outcome(workdir):
    (trial,) = (p for p in workdir.glob("checkpoints/*/seed_0"))
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    return read_latest(trial), lines


def points(workdir):
    """{(name, step): how often} in TensorBoard's files."""
    from tensorboardX.proto import event_pb2

    from experiments.data.tfrecord import records

    found = {}
    for path in workdir.glob("tensorboard/*/seed_0/events*"):
        for data in records(path):
            event = event_pb2.Event.FromString(data)
            for value in event.summary.value:
                key = (value.tag, event.step)
                found[key] = found.get(key, 0) + 1
    return found


def different(workdir, whole):
    """What differs between two workdirs, in words."""
    (tree, lines), (expected, expected_lines) = outcome(workdir), outcome(whole)
    wrong = []
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(expected), strict=True
    ):
        if np.asarray(a).tobytes() != np.asarray(b).tobytes():
            wrong.append(jax.tree_util.keystr(path))
    for line in (*lines, *expected_lines):
        line.pop("images_per_second")
    if lines != expected_lines:
        wrong.append("metrics.jsonl")
    expected_points = {
        (name, line["step"]): 1
        for line in lines
        for name, value in line.items()
        if name not in ("run", "seed", "step") and value is not None
    }
    found = {k: n for k, n in points(workdir).items() if k[0] != "images_per_second"}
    if found != expected_points:
        wrong.append("TensorBoard")
    return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    wanted = {name: arguments.kills // len(COMMANDS) for name in COMMANDS}
    wanted[next(iter(COMMANDS))] += arguments.kills % len(COMMANDS)
    failed = 0
    for module, flags in COMMANDS.items():
        name = module.rpartition(".")[2]
        whole = arguments.out / f"{name}_whole"
        began = time.monotonic()
        process = start(module, flags, whole, False)
        _, errors = process.communicate()
        assert process.returncode == 0, errors.decode()
        seconds = time.monotonic() - began
        kills = 0
        while kills < wanted[module]:
            workdir = arguments.out / f"{name}_killed"
            shutil.rmtree(workdir, ignore_errors=True)
            resume, here = False, 0
            while True:
                process = start(module, flags, workdir, resume)
                resume = True
                limit = draw.uniform(0.1, 1.0) * seconds if kills < wanted[module] else None
                try:
                    _, errors = process.communicate(timeout=limit)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    kills, here = kills + 1, here + 1
                    continue
                break
            wrong = [errors.decode()[-500:]] if process.returncode else different(workdir, whole)
            failed += bool(wrong)
            print(f"{name}: {here} kills, then the end: {wrong or 'the same bits'}", flush=True)
    print(f"{arguments.kills} kills, {failed} runs different or lost", flush=True)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
