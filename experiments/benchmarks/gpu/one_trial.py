"""One trial in a process of its own, for `trials.py`: ready, go, done, told by files in a folder.

python -m experiments.benchmarks.gpu.one_trial '{"seed": 0, "folder": ..., ...}'
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import time
from typing import Any

import jax

from experiments import data
from experiments.benchmarks.gpu.setup import FULL, REDUCED, Setup
from experiments.benchmarks.gpu.trainings import Training, config
from experiments.system.files import write_text

MOST_SECONDS = 600.0  # a process whose parent is gone ends


def main(asked: dict[str, Any]) -> None:
    """Compiles, waits for the others, and times a few calls."""
    folder, seed = pathlib.Path(asked["folder"]), asked["seed"]
    sizes = dataclasses.replace(REDUCED if asked["reduced"] else FULL, depth=asked["depth"])
    dataset = data.load(asked["dataset"], asked["data_dir"], notice=lambda line: None)
    setup = Setup(sizes, dataset, asked["data_dir"], folder)
    training = Training(config(setup, "l2", asked["batch"]), dataset, seed)
    jax.block_until_ready(training())
    write_text(folder / f"{seed}.ready", "")
    waiting = time.monotonic()
    while not (folder / "go").exists():
        if not folder.exists() or time.monotonic() - waiting > MOST_SECONDS:
            return
        time.sleep(0.01)
    for _ in range(asked["calls"]):
        jax.block_until_ready(training())
    # The monotonic clock is one for all processes of a machine.
    done = {"end": time.monotonic(), "images": training.images * asked["calls"]}
    write_text(folder / f"{seed}.done", json.dumps(done))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
