"""Several trials of the ResNet at once: in turn, vmapped over seeds, and a process for each."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.timed import first_calls, turns_within
from experiments.benchmarks.gpu.trainings import Training, config
from experiments.benchmarks.timing import quartiles
from experiments.training.sharding import one_step
from experiments.training.task import Batch

# Shares of the part's time for the turns of the first two ways.
TURNS = 0.15
ROOT = pathlib.Path(__file__).resolve().parents[3]
CALLS = 3  # of a process, timed


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """Images per second of all trials together, in each way."""
    seconds, sizes = clock.left, setup.sizes
    results |= {"trials": sizes.trials, "mps_running": mps_is_running(), "images_per_second": {}}
    rates = results["images_per_second"]
    first = setup.kept.get("l2") or Training(config(setup, "l2", sizes.batches[0]), setup.dataset)
    trainings = [first, *(first.again(seed) for seed in range(1, sizes.trials))]

    def in_turn() -> list[Any]:
        return [training() for training in trainings]

    calls: dict[str, Any] = {"in turn": in_turn, "vmap": _Vmapped(first, setup)}
    made = first_calls(calls, clock, 1, results)
    for name in made:
        times = turns_within({name: calls[name]}, TURNS * seconds, sizes.turns)[name]
        rates[name] = quartiles(sizes.trials * first.images / times)
        setup.notice(f"  {name}: {rates[name]['median']:.0f} images/s")
    if not clock.fits(0.2 * seconds):
        results.setdefault("left_out", []).append("one process per trial")
        return
    found = processes(setup, clock)
    if found is None:
        results.setdefault("left_out", []).append("one process per trial (not ready in time)")
    else:
        rates["one process per trial"] = quartiles(np.array([found]))
        setup.notice(f"  one process per trial: {found:.0f} images/s")


class _Vmapped:
    """Trials as one program, vmapped over their states, orders and seeds."""

    def __init__(self, training: Training, setup: Setup):
        self._training, self._setup = training, setup
        self._state: Any = None

    def __call__(self) -> Any:
        if self._state is None:
            self._start()
        self._state = self._step(self._state, self._order, self._seeds)
        return self._state

    def _start(self) -> None:
        executor, count = self._training.executor, self._setup.sizes.trials
        train, steps = self._setup.dataset.train, self._training.steps
        states = [executor.initial_state(seed) for seed in range(count)]
        self._state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
        self._seeds = jnp.arange(count)
        rng = np.random.default_rng(0)
        shape = (count, steps, executor.batch_size)
        self._order = jnp.asarray(rng.integers(0, len(train), shape))
        examples, labels = jnp.asarray(train.examples), jnp.asarray(train.labels)

        def step(state: Any, chosen: Any, seed: Any) -> Any:
            return one_step(executor.task, state, Batch(examples[chosen], labels[chosen]), seed)

        def trial(state: Any, order: Any, seed: Any) -> Any:
            if steps == 1:  # On a CPU a step inside a scan is many times slower.
                return step(state, order[0], seed)
            return jax.lax.scan(lambda s, c: (step(s, c, seed), None), state, order)[0]

        self._step = jax.jit(jax.vmap(trial), donate_argnums=0)


def processes(setup: Setup, clock: Clock) -> float | None:
    """Images per second of all trials, each in a process of its own that begins when all are ready.

    Returns:
      None if they are not ready in time.

    Raises:
      RuntimeError: a process ended with an error.
    """
    count, batch = setup.sizes.trials, setup.sizes.batches[0]
    folder = pathlib.Path(tempfile.mkdtemp())
    asked = {
        "depth": setup.sizes.depth,
        "batch": batch,
        "dataset": setup.dataset.name,
        "data_dir": setup.data_dir,
        "calls": CALLS,
        "reduced": setup.sizes.name != "full",
    }
    environment = dict(os.environ, XLA_PYTHON_CLIENT_PREALLOCATE="false")
    if setup.cache:
        environment["JAX_COMPILATION_CACHE_DIR"] = setup.cache
    started = []
    try:
        for seed in range(count):
            arguments = json.dumps(asked | {"seed": seed, "folder": str(folder)})
            command = [sys.executable, "-m", "experiments.benchmarks.gpu.one_trial", arguments]
            with open(folder / f"{seed}.log", "wb") as log:
                started.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
                )
        wait = functools.partial(_wait, folder, started, clock)
        if not wait("ready"):
            return None
        begin = time.monotonic()
        (folder / "go").touch()
        if not wait("done"):
            return None
        ends = [json.loads((folder / f"{seed}.done").read_text("utf-8")) for seed in range(count)]
        return sum(end["images"] for end in ends) / (max(e["end"] for e in ends) - begin)
    finally:
        for process in started:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: pathlib.Path, started: list[Any], clock: Clock, what: str) -> bool:
    """Whether every process has written its file in time."""
    while clock.fits():
        if all((folder / f"{seed}.{what}").exists() for seed in range(len(started))):
            return True
        for seed, process in enumerate(started):
            if process.poll() not in (None, 0):
                log = (folder / f"{seed}.log").read_text("utf-8", errors="replace")
                last = (log.strip().splitlines() or ["no output"])[-1]
                raise RuntimeError(f"the process of seed {seed} ended: {last}")
        time.sleep(0.05)
    return False


def mps_is_running() -> bool | None:
    """Whether NVIDIA's multi-process service serves this device; None where nothing tells."""
    if jax.default_backend() == "cpu":
        return None
    if os.environ.get("CUDA_MPS_PIPE_DIRECTORY"):
        return True
    try:
        shown = subprocess.run(
            ["nvidia-smi"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return "nvidia-cuda-mps-server" in shown.stdout


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    known = {True: "yes", False: "no", None: "nothing tells"}[results.get("mps_running")]
    lines = [("MPS is running", known)] if results else []
    for name, rate in results.get("images_per_second", {}).items():
        what = f"{results['trials']} trials, {name}: images/s of all together"
        lines.append((what, f"{rate['median']:.0f}"))
    return lines
