"""Several runs, several trials each, on the same seeds: what a training command does.

from experiments.training.study import Run, train

summary = train("my_experiment", [Run("sgd", config)], dataset, build, workdir="runs/mine",
                seeds=range(3))
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from experiments.data.dataset import Dataset
from experiments.system import environment
from experiments.system.errors import ConfigError
from experiments.system.files import write_json
from experiments.system.output import say
from experiments.training import processes, settings, statistics
from experiments.training import resume as earlier
from experiments.training.checkpoints import require_savable
from experiments.training.cluster import Cluster
from experiments.training.config import Length
from experiments.training.devices import spread
from experiments.training.execution import Executor
from experiments.training.loop import DEFAULT_POLICY, CheckpointPolicy, Trial, attempt
from experiments.training.sharding import BatchSharding
from experiments.training.task import Task
from experiments.training.trial_files import Nowhere, OnDisk, TrialFiles
from experiments.training.workdir import Workdir

MOST_SEEDS = 100_000
SEED_LIMIT = 2**31  # JAX makes keys from 32 bits

Build = Callable[[Any, Dataset], tuple[Task, Length]]


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of the comparison: a name (unique, fit for a folder) and its settings."""

    name: str
    config: Any


def train(
    experiment: str,
    runs: Sequence[Run],
    dataset: Dataset,
    build: Build,
    *,
    workdir: str | os.PathLike[str],
    seeds: Sequence[int],
    resume: bool = False,
    policy: CheckpointPolicy = DEFAULT_POLICY,
    devices: Sequence[jax.Device] | None = None,
    sharding: BatchSharding | None = None,
    cluster: str | None = None,
    command: Sequence[str] | None = None,
    notice: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Trains every run on every seed, and leaves everything that is known about them in a folder.

    The folder gets config.json, metrics.jsonl, summary.json, checkpoints and TensorBoard events;
    figures are the caller's to draw. Trials that summary.json already holds are not trained again.
    A trial that becomes non-finite is recorded with its message, and the others go on.

    Args:
      experiment: its name, for the record.
      runs: the first one is the baseline of the comparison. Their configurations are `Config`s,
        other dataclasses or mappings.
      dataset: what is learnt from (its train split) and evaluated on (the others).
      build: (config, dataset) to a task and how long it is trained.
      workdir: the folder, made if it is missing.
      seeds: each fixes initialisation, order of the data and augmentation of one trial.
      resume: goes on with what is in the folder; further seeds and runs may be added.
      policy: when checkpoints are saved, besides after every evaluation.
      devices: trials run side by side, one on each of them; by default one after
        another on JAX's default device.
      sharding: divides the batches of every trial among devices, instead.
      cluster: address of a Ray cluster that trains the trials, instead; see `Cluster`.
      command: the command line, for the record.
      notice: is called with lines about progress and damage.

    Returns:
      summary.json as a dict.

    Raises:
      ConfigError: naming the setting, what came and what is accepted.
      UserError: the folder holds another study, or another process works in it.
    """
    started = time.monotonic()
    seeds = _checked_seeds(seeds)
    _check_names(runs)
    # Built before anything is written, so that settings that do not fit the data leave no folder.
    built = {run.name: build(run.config, dataset) for run in runs}
    examples = len(dataset.train)
    for _, length in built.values():
        length.steps(examples)
        if sharding is not None:
            sharding.check(length.batch_size)
    shared = sharding.settings if sharding else {}
    recorded = {run.name: settings.record(run.config) | shared for run in runs}
    headline = built[runs[0].name][0].headline
    data = {"name": dataset.name, "fingerprint": dataset.fingerprint}
    study_settings = {
        "experiment": experiment, "dataset": data, "seeds": seeds, "runs": recorded,
    }  # fmt: skip
    wanted = {
        run.name: {s: _identity(experiment, data, recorded[run.name], s) for s in seeds}
        for run in runs
    }
    processes.require_equal({"study": study_settings, "checkpoint_every": policy.steps})
    facts = {
        "command": list(command) if command is not None else None,
        "data_dir": dataset.data_dir,
        "provenance": dataset.provenance,
        "environment": environment.describe(),
    }
    with contextlib.ExitStack() as held:
        # Before the folder is made: an address without a cluster leaves nothing.
        workers = held.enter_context(Cluster(cluster)) if cluster is not None else None
        folder: Workdir | None = None  # Of several processes only the first one has it.

        def begin() -> dict[str, Any]:
            nonlocal folder
            kept: dict[str, Any] = {}

            def check(opened: Workdir) -> None:
                require_savable(opened.path)
                previous = opened.read_summary(f"test_{headline.name}")
                previous = previous or {"runs": [], "wall_seconds": 0.0}
                kept["trials"] = earlier.finished(previous, wanted)
                kept["wall_seconds"] = previous["wall_seconds"]
                if not opened.has_config:
                    earlier.check_checkpoints(opened, wanted)

            folder = held.enter_context(
                Workdir(workdir, study_settings, check, resume=resume, record=facts, notice=notice)
            )
            if resume and not folder.existed:
                notice(f"nothing to resume in {folder.path}: training from the first step")
            for name, rows in kept["trials"].items():
                for row in rows:
                    earlier.restore_files(folder, name, row["seed"], notice)
            return kept

        before = processes.agreed(begin)
        trials = before["trials"]

        def summary() -> dict[str, Any]:
            rates = [t.get("images_per_second") for ts in trials.values() for t in ts]
            rates = [r for r in rates if r]
            rows = [
                {
                    "name": run.name,
                    "metric": recorded[run.name].get("metric"),
                    "settings": recorded[run.name],
                    "trials": trials[run.name],
                    **statistics.describe([t[f"test_{headline.name}"] for t in trials[run.name]]),
                }
                for run in runs
            ]
            return {
                "experiment": experiment,
                "dataset": dataset.name,
                "model": recorded[runs[0].name].get("model", experiment),
                "headline": dataclasses.asdict(headline),
                "runs": rows,
                "comparison": statistics.compare(rows, headline),
                "images_per_second": float(np.median(rates)) if rates else None,
                "device": environment.device(),
                "commit": environment.commit(),
                "wall_seconds": before["wall_seconds"] + time.monotonic() - started,
            }

        jobs = [
            (run, _trial(run.name, seed, built[run.name][1], examples, identity))
            for run in runs
            for seed, identity in wanted[run.name].items()
            if seed not in {t["seed"] for t in trials[run.name]}
        ]
        executors = threading.local()  # One for each device, of the run that it works at.

        def work(job: tuple[Run, Trial]) -> dict[str, Any]:
            run, trial = job
            task, length = built[run.name]
            if getattr(executors, "run", None) is not run:
                executors.run = run
                executors.executor = Executor(task, dataset, length.batch_size, sharding=sharding)
            files: TrialFiles = Nowhere()
            if folder is not None:
                files = OnDisk(folder, run.name, trial.seed, trial.identity, notice)
            return attempt(executors.executor, trial, files, policy, notice)

        def results() -> Iterator[tuple[Trial, dict[str, Any]]]:
            if workers is None:
                for (_, trial), result in spread(jobs, work, devices):
                    yield trial, result
                return
            assert folder is not None
            tasks = [(run.config, trial) for run, trial in jobs]
            for trial, result, records in workers.results(
                tasks, build, dataset, folder.path, policy
            ):
                folder.replace_metrics(trial.run, trial.seed, records)
                yield trial, result

        for trial, result in results():
            result["identity"] = earlier.short(trial.identity)
            others = trials[trial.run]
            trials[trial.run] = sorted([*others, result], key=lambda t: t["seed"])
            if folder is not None:
                write_json(folder.summary_path, summary())
        final = summary()
        if folder is not None:
            write_json(folder.summary_path, final)
    return final


def failures(summary: dict[str, Any]) -> list[str]:
    """Messages of the trials that ended in an error."""
    return [t["error"] for run in summary["runs"] for t in run["trials"] if "error" in t]


def _checked_seeds(seeds: Sequence[int]) -> list[int]:
    if len(seeds) == 0:
        raise ConfigError("seeds", "none", "one seed or more")
    if len(seeds) > MOST_SEEDS:
        raise ConfigError("trials", len(seeds), f"at most {MOST_SEEDS}")
    for seed in seeds:
        if not 0 <= seed < SEED_LIMIT:
            raise ConfigError("seed", seed, "an integer >= 0 and < 2^31, for every trial")
    if len(set(seeds)) < len(seeds):
        raise ConfigError("seeds", list(seeds), "each seed once")
    return sorted(int(seed) for seed in seeds)


def _check_names(runs: Sequence[Run]) -> None:
    names = [run.name for run in runs]
    if not names:
        raise ConfigError("runs", "none", "one run or more")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("runs", f"{name} twice", "each name once")
        if not name or "/" in name or name in (".", ".."):
            raise ConfigError("runs", repr(name), "names that are fit for a folder")


def _trial(run: str, seed: int, length: Length, examples: int, identity: dict[str, Any]) -> Trial:
    every = length.steps_between_evaluations(examples)
    return Trial(run, seed, length.steps(examples), every, identity)


def _identity(
    experiment: str, data: dict[str, Any], recorded: dict[str, Any], seed: int
) -> dict[str, Any]:
    """What the result of one trial depends on."""
    return {"experiment": experiment, "dataset": data, "seed": seed, "settings": recorded}
