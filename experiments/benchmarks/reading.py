"""How long the device waits for batches of a dataset that stays on the disk.

    python -m experiments.benchmarks.reading --out=results.json

Writes random clips to a file, as prepare_data stores UCF-101, maps it into memory and trains the
narrow 3D ConvNet on it with batches that are already on the device, that are read between steps,
and that threads read ahead and copy while the device works (what the engine does on an accelerator
with data larger than its memory). Rounds of the three take turns. The share of waiting is 1 - (time
with batches on the device) / (time with reading). A second table has the megabytes per second that
the reader alone gives by the number of threads: what a device may use up before it waits.

The file is in the system's folder for temporary files (TMPDIR). What was just written is still in
memory; --megabytes above the machine's memory reads a disk.
Takes a minute on two CPU cores.
"""

from __future__ import annotations

import itertools
import pathlib
import tempfile
import time
from typing import Any

import jax
import numpy as np
from absl import flags

from experiments.benchmarks.convnet3d import make_task
from experiments.benchmarks.timing import quartiles
from experiments.cli import lists
from experiments.cli import main as command
from experiments.data.dataset import Dataset, Split
from experiments.data.read_ahead import ReadAhead
from experiments.models.convnet3d import narrow
from experiments.system import environment
from experiments.system.files import write_json
from experiments.training.execution import Executor, Plan, batches

BATCH = 16
AHEAD, THREADS = 4, (1, 2, 4)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "reading"}
    flags.DEFINE_integer("megabytes", 500, "Size of the stored clips.", **where)
    flags.DEFINE_integer("size", 32, "Height and width of the clips of 16 frames.", **where)
    flags.DEFINE_integer("steps", 20, "Training steps of one round.", **where)
    flags.DEFINE_integer("rounds", 7, "Rounds of each way to read.", **where)
    flags.DEFINE_string(
        "out", None, "JSON file for the results, with device, versions and commit.", **where
    )


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Measures, prints and returns what the flags ask for."""
    lists.within("megabytes", values.megabytes, 1, 1_000_000)
    lists.within("size", values.size, 8, 512)
    lists.within("steps", values.steps, 1, 100_000)
    lists.within("rounds", values.rounds, 1, 10_000)
    out = command.out_file(values)
    results: dict[str, Any] = {"environment": environment.describe(), "megabytes": values.megabytes}
    print(results["environment"]["device"], flush=True)
    with tempfile.TemporaryDirectory(prefix="clips-") as folder:
        clips = stored_clips(pathlib.Path(folder), values.size, values.megabytes)
        results["training"] = training(clips, values.steps, values.rounds)
        results["reading_megabytes_per_second"] = reading(clips, values.steps, values.rounds)
    print(table(results), flush=True)
    if out:
        write_json(out, results)
        print(f"written to {out}")
    return results


def stored_clips(folder: pathlib.Path, size: int, megabytes: int) -> Dataset:
    """Random clips (16, size, size, 3) in a file that is mapped into memory."""
    shape = (16, size, size, 3)
    count = max(2 * BATCH, megabytes * 1_000_000 // int(np.prod(shape)))
    path, rng = folder / "clips.npy", np.random.default_rng(0)
    stored = np.lib.format.open_memmap(path, "w+", np.uint8, (count, *shape))
    for start in range(0, count, 64):
        part = stored[start : start + 64]
        part[...] = rng.integers(0, 256, part.shape, dtype=np.uint8)
    stored.flush()
    labels = rng.integers(0, 10, count).astype(np.int32)
    examples = np.load(path, mmap_mode="r")
    few = Split(np.array(examples[:BATCH]), labels[:BATCH])
    return Dataset("clips", Split(examples, labels), few, tuple("0123456789"), "random numbers")


def training(clips: Dataset, steps: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of a step by where its batch comes from, and percent of it spent waiting."""
    task = make_task(narrow, clips, strength=0.0)
    plans = {"in turn": Plan(steps, False), "ahead": Plan(steps, False, read_ahead=AHEAD)}
    engines = {name: Executor(task, clips, BATCH, plan) for name, plan in plans.items()}
    # Batches that are on the device already: the same step without any reading.
    engine = engines["in turn"]
    with engines["ahead"].reading(order(clips, 0)) as feed:
        placed = itertools.repeat(next(feed))
    seconds: dict[str, list[float]] = {"on the device": [], "in turn": [], "ahead": []}
    for number in range(rounds + 1):
        for name, times in seconds.items():
            used = engines.get(name, engine)
            with used.reading(order(clips, number)) as feed:
                state = used.initial_state(0)
                items = placed if name == "on the device" else feed
                state = jax.block_until_ready(used.train(state, items, 1, 0))
                start = time.perf_counter()
                jax.block_until_ready(used.train(state, items, steps, 0))
                times.append((time.perf_counter() - start) / steps)
    found = {name: np.array(times[1:]) for name, times in seconds.items()}  # the first compiles
    fixed = found["on the device"]
    return {
        "batch_size": BATCH,
        "step_milliseconds": {name: quartiles(1e3 * times) for name, times in found.items()},
        "waiting_percent": {
            name: quartiles(100 * (1 - fixed / found[name])) for name in ("in turn", "ahead")
        },
    }


def reading(clips: Dataset, steps: int, rounds: int) -> dict[str, dict[str, float]]:
    """Megabytes per second that reading alone gives, by the number of threads that read."""
    examples = clips.train.examples
    batch_bytes = BATCH * int(np.prod(examples.shape[1:]))

    def load(indices: np.ndarray) -> Any:
        return jax.block_until_ready(jax.device_put(np.asarray(examples[np.sort(indices)])))

    found = {}
    for threads in THREADS:
        rates = []
        for number in range(rounds):
            with ReadAhead(load, order(clips, number), AHEAD, threads) as feed:
                next(feed)
                start = time.perf_counter()
                for _ in range(steps):
                    next(feed)
                rates.append(steps * batch_bytes / 1e6 / (time.perf_counter() - start))
        found[str(threads)] = quartiles(np.array(rates))
    return found


def order(clips: Dataset, seed: int) -> Any:
    """The batches of a trial with this seed."""
    return batches(seed, len(clips.train), BATCH, 0)


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    trained = results["training"]
    lines = ["| batches | ms a step | waiting (%) |", "| --- | --- | --- |"]
    for name, step in trained["step_milliseconds"].items():
        waiting = trained["waiting_percent"].get(name)
        share = "" if waiting is None else "{median:.1f} [{low:.1f}, {high:.1f}]".format(**waiting)
        lines.append(f"| {name} | {step['median']:.2f} | {share} |")
    lines += ["", "| threads | MB/s read | ", "| --- | --- |"]
    for threads, rate in results["reading_megabytes_per_second"].items():
        lines.append(f"| {threads} | {rate['median']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main, define)
