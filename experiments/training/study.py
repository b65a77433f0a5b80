"""Several runs, several trials each, on the same seeds: what a training binary does."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.data.dataset import Dataset
from experiments.figures import training as figures
from experiments.system import environment
from experiments.system.errors import NonFiniteError
from experiments.system.files import write_json
from experiments.training import statistics
from experiments.training.config import TrainConfig
from experiments.training.execution import Executor, plan_for
from experiments.training.loop import DEFAULT_POLICY, CheckpointPolicy, train_trial
from experiments.training.problem import Problem
from experiments.training.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of the comparison: a name (unique, fit for a folder) and its settings."""

    name: str
    config: TrainConfig


def run_study(
    runs: Sequence[Run],
    seeds: Sequence[int],
    dataset: Dataset,
    build: Callable[[TrainConfig, Dataset], Problem],
    workdir: Workdir,
    policy: CheckpointPolicy = DEFAULT_POLICY,
    notice: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains every run on every seed, and leaves summary.json and figures in the workdir.

    Trials that summary.json already holds are not trained again. A trial whose loss becomes
    non-finite is recorded with its message; the others go on.

    Args:
      runs: the first one is the baseline of the comparison.
      seeds: each fixes initialisation, order of the data and augmentation of one trial.
      build: settings and data to a problem.

    Returns:
      summary.json as a dict.
    """
    started = time.monotonic()
    previous = workdir.read_summary() or {"runs": [], "wall_seconds": 0.0}
    finished = {run["name"]: run["trials"] for run in previous["runs"]}
    trials = {run.name: [t for t in finished.get(run.name, []) if "error" not in t] for run in runs}

    def summary() -> dict[str, Any]:
        rates = [t.get("images_per_second") for ts in trials.values() for t in ts]
        rates = [r for r in rates if r]
        rows = [_row(run, trials[run.name]) for run in runs]
        return {
            "dataset": dataset.name,
            "model": runs[0].config.model,
            "runs": rows,
            "comparison": statistics.compare(rows),
            "images_per_second": float(np.median(rates)) if rates else None,
            "device": environment.device(),
            "commit": environment.commit(),
            "wall_seconds": previous["wall_seconds"] + time.monotonic() - started,
        }

    for run in runs:
        wanted = [s for s in seeds if s not in {t["seed"] for t in trials[run.name]}]
        if not wanted:
            continue
        problem = build(run.config, dataset)
        plan = plan_for(sum(s.examples.nbytes for s in dataset.splits().values()))
        executor = Executor(problem, plan)
        for seed in wanted:
            try:
                result = train_trial(executor, run.name, seed, workdir, policy, notice)
            except NonFiniteError as error:
                notice(f"error: {error}")
                result = {"seed": seed, "error": str(error), "test_accuracy": None}
            trials[run.name] = sorted([*trials[run.name], result], key=lambda t: t["seed"])
            write_json(workdir.summary_path, summary())
    final = summary()
    write_json(workdir.summary_path, final)
    figures.draw(workdir.path, final, workdir.read_metrics())
    return final


def _row(run: Run, trials: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": run.name,
        "metric": run.config.metric,
        "settings": run.config.to_json(),
        "trials": trials,
        **statistics.describe([t["test_accuracy"] for t in trials]),
    }


def failures(summary: dict[str, Any]) -> list[str]:
    """Messages of the trials that ended in an error."""
    return [t["error"] for run in summary["runs"] for t in run["trials"] if "error" in t]
