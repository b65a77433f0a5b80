"""Statistics over trials: means, paired differences with intervals, the paper's error reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats


def describe(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value) and number of the finite values."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return {
        "mean": float(np.mean(finite)) if finite else None,
        "std": float(np.std(finite, ddof=1)) if len(finite) > 1 else None,
        "n": len(finite),
    }


def paired(
    baseline: dict[int, float], other: dict[int, float], confidence: float = 0.95
) -> dict[str, Any]:
    """Difference other - baseline over the seeds that both have.

    Args:
      baseline, other: accuracy in [0, 1] by seed.
      confidence: of the interval.

    Returns:
      "difference" (mean), "interval" (Student's t on the paired differences; None below two
      pairs), "n", and "error_reduced_percent", the share of the baseline's mean error that the
      other removes (Channel-directed gradients, table 2).
    """
    seeds = sorted(set(baseline) & set(other))
    if not seeds:
        return {"difference": None, "interval": None, "n": 0, "error_reduced_percent": None}
    before = np.array([baseline[s] for s in seeds])
    after = np.array([other[s] for s in seeds])
    interval = None
    if len(seeds) > 1:
        if np.ptp(after - before) < 1e-12:  # No spread: the interval is the point itself.
            interval = [float((after - before)[0])] * 2
        else:
            result = scipy.stats.ttest_rel(after, before)
            interval = [float(x) for x in result.confidence_interval(confidence)]
    error = 1 - before.mean()
    reduced = 100 * (after.mean() - before.mean()) / error if error > 0 else None
    return {
        "difference": float((after - before).mean()),
        "interval": interval,
        "n": len(seeds),
        "error_reduced_percent": None if reduced is None else float(reduced),
    }


def compare(runs: Sequence[dict[str, Any]], key: str = "test_accuracy") -> list[dict[str, Any]]:
    """Each run of a summary against the first one, pair by pair of seeds.

    Args:
      runs: "runs" of summary.json.
      key: which accuracy of a trial.
    """
    if len(runs) < 2:
        return []

    def by_seed(run):
        return {t["seed"]: t[key] for t in run["trials"] if t.get(key) is not None}

    baseline = by_seed(runs[0])
    return [
        {"run": run["name"], "baseline": runs[0]["name"], **paired(baseline, by_seed(run))}
        for run in runs[1:]
    ]


def table(summary: dict[str, Any]) -> str:
    """The comparison table that a run ends with, accuracies in percent."""
    comparison = {row["run"]: row for row in summary["comparison"]}
    width = max([len(run["name"]) for run in summary["runs"]] + [len("run")])
    lines = [
        f"test accuracy on {summary['dataset']} (%)",
        f"{'run':<{width}}    mean    std   n   paired difference [95 %]    error reduced",
    ]
    for run in summary["runs"]:
        cells = [f"{run['name']:<{width}}", _percent(run["mean"], 8), _percent(run["std"], 7)]
        cells.append(f"{run['n']:>4}")
        row = comparison.get(run["name"])
        if row is not None and row["n"]:
            interval = row["interval"]
            between = "[one pair]"
            if interval:
                between = f"[{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"
            reduced = row["error_reduced_percent"]
            cells.append(f"   {100 * row['difference']:+6.2f} {between:<18}")
            cells.append(f"{'-' if reduced is None else f'{reduced:+.1f} %':>15}")
        lines.append("".join(cells))
    return "\n".join(lines)


def _percent(value: float | None, width: int) -> str:
    return f"{'-' if value is None else f'{100 * value:.2f}':>{width}}"
