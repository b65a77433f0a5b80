"""Real training of the paper's metrics on the same seeds, as many trials as the time allows."""

from __future__ import annotations

import shutil
import time
from typing import Any

from experiments import cifar_resnet56
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.trainings import config
from experiments.training import study
from experiments.training.study import Run

METRICS = ("l2", "reweighted_l2", "sobolev")
MOST_TRIALS = 100
# A second study compiles again, from the cache; this share of the first one's time at most.
COMPILING = 0.3


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """One trial of each metric tells how long they take; then as many more as fit."""
    folder = setup.out / "training"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run of the suite
    batch = setup.sizes.batches[0]
    runs = [Run(name, config(setup, name, batch)) for name in METRICS]
    results |= {"dataset": setup.dataset.name, "depth": setup.sizes.depth, "batch": batch}
    estimate = _estimate(setup, batch)
    if not clock.fits(estimate):
        results["left_out"] = [f"every trial: one of each metric takes about {estimate:.0f} s"]
        return
    start, longest = time.monotonic(), 0.0
    for count in range(1, len(runs) + 1):
        # The first trial of a run compiles, which an estimate of its steps does not know.
        if not clock.fits(longest):
            results["left_out"] = [run.name for run in runs[count - 1 :]]
            return
        before = time.monotonic()
        _train(setup, runs[:count], 1, results)
        longest = max(longest, time.monotonic() - before)
    first = time.monotonic() - start
    # Without compiling a trial of each takes less; the first one bounds what more will take.
    more = min(MOST_TRIALS - 1, int((clock.left - COMPILING * first) / first))
    if more > 0:
        _train(setup, runs, 1 + more, results)


def _train(setup: Setup, runs: list[Run], trials: int, results: dict[str, Any]) -> None:
    summary = study.train(
        "gpu_suite",
        runs,
        setup.dataset,
        cifar_resnet56.build,
        workdir=setup.out / "training",
        seeds=range(trials),
        resume=trials > 1 or len(runs) > 1,
        notice=lambda line: setup.notice(f"  {line}"),
    )
    results |= {
        "trials": trials,
        "steps": setup.sizes.steps.get(setup.dataset.name, setup.sizes.steps[""]),
        "test_accuracy": {
            run["name"]: [trial.get("test_accuracy") for trial in run["trials"]]
            for run in summary["runs"]
        },
        "comparison": summary["comparison"],
        "images_per_second": summary["images_per_second"],
    }


def _estimate(setup: Setup, batch: int) -> float:
    """Seconds of the steps of one trial of each metric, if an earlier part has timed a step."""
    rate = setup.kept.get("images_per_second")
    steps = setup.sizes.steps.get(setup.dataset.name, setup.sizes.steps[""])
    return len(METRICS) * steps * batch / rate if rate else 0.0


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    lines = []
    for name, accuracies in results.get("test_accuracy", {}).items():
        known = [a for a in accuracies if a is not None]
        mean = f"{100 * sum(known) / len(known):.2f} %" if known else "no trial ended well"
        what = f"{name}: test accuracy on {results['dataset']}, {results['steps']} steps"
        lines.append((what, f"{mean}, mean of {len(known)}"))
    return lines
