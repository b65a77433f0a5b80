"""Statistics over trials: means, paired differences with intervals, the paper's error reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from experiments.training.task import Headline


def describe(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value) and number of the finite values."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return {
        "mean": float(np.mean(finite)) if finite else None,
        "std": float(np.std(finite, ddof=1)) if len(finite) > 1 else None,
        "n": len(finite),
    }


def half_interval(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of Student's t interval of a mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    quantile = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))


def paired(
    baseline: dict[int, float],
    other: dict[int, float],
    confidence: float = 0.95,
    headline: Headline | None = None,
) -> dict[str, Any]:
    """Difference other - baseline over the seeds that both have.

    Args:
      baseline: the headline number by seed.
      other: the same of the other run.
      confidence: of the interval.
      headline: says what the error is: 1 - value where higher is better (a share in [0, 1]), and
        the value itself where lower is better. Higher is better by default.

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
    higher = headline is None or headline.higher_is_better
    error = 1 - before.mean() if higher else before.mean()
    gain = (after.mean() - before.mean()) if higher else (before.mean() - after.mean())
    reduced = 100 * gain / error if error > 0 else None
    return {
        "difference": float((after - before).mean()),
        "interval": interval,
        "n": len(seeds),
        "error_reduced_percent": None if reduced is None else float(reduced),
    }


def compare(runs: Sequence[dict[str, Any]], headline: Headline) -> list[dict[str, Any]]:
    """Each run of a summary against the first one, pair by pair of seeds.

    Args:
      runs: "runs" of summary.json.
      headline: what is compared, on the test split.
    """
    if len(runs) < 2:
        return []
    key = f"test_{headline.name}"

    def by_seed(run):
        return {t["seed"]: t[key] for t in run["trials"] if t.get(key) is not None}

    baseline = by_seed(runs[0])
    return [
        {
            "run": run["name"],
            "baseline": runs[0]["name"],
            **paired(baseline, by_seed(run), headline=headline),
        }
        for run in runs[1:]
    ]


def headline_of(summary: dict[str, Any]) -> Headline:
    """The headline of a summary.json."""
    return Headline(**summary["headline"])


def table(summary: dict[str, Any]) -> str:
    """The comparison table that a study ends with."""
    headline = headline_of(summary)
    comparison = {row["run"]: row for row in summary["comparison"]}
    width = max([len(run["name"]) for run in summary["runs"]] + [len("run")])
    lines = [
        f"test {headline.label} on {summary['dataset']}",
        f"{'run':<{width}}    mean    std   n   paired difference [95 %]    error reduced",
    ]

    def number(value: float | None, width: int, sign: str = "") -> str:
        text = "-" if value is None else f"{headline.scale * value:{sign}.{_digits(headline)}f}"
        return f"{text:>{width}}"

    for run in summary["runs"]:
        cells = [f"{run['name']:<{width}}", number(run["mean"], 8), number(run["std"], 7)]
        cells.append(f"{run['n']:>4}")
        row = comparison.get(run["name"])
        if row is not None and row["n"]:
            interval = row["interval"]
            between = "[one pair]"
            if interval:
                between = f"[{number(interval[0], 0, '+')}, {number(interval[1], 0, '+')}]"
            reduced = row["error_reduced_percent"]
            cells.append(f"   {number(row['difference'], 6, '+')} {between:<18}")
            cells.append(f"{'-' if reduced is None else f'{reduced:+.1f} %':>15}")
        lines.append("".join(cells))
    return "\n".join(lines)


def _digits(headline: Headline) -> int:
    return 2 if headline.percent else 4
