"""Test headline against lambda of each metric, and plain SGD as the line at 0.

Channel-directed gradients, figure 6.
"""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.files import save
from experiments.figures.names import plain
from experiments.training import statistics


def draw(directory: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes smoothness.png, where a trial ended."""
    if any(run["n"] for run in summary["runs"]):
        save(against_lambda(summary), directory / "smoothness.png")


def against_lambda(summary: dict[str, Any]) -> Figure:
    """Means over trials with their 95 % intervals, and every trial as a dot.

    Args:
      summary: summary.json; runs without a lambda are drawn as a line from 0 on.
    """
    headline = statistics.headline_of(summary)
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axis = figure.subplots()
    runs = [run for run in summary["runs"] if run["n"]]
    lines: dict[str, list[tuple[float, np.ndarray]]] = {}
    for run in runs:
        values = headline.scale * np.array(
            [t[f"test_{headline.name}"] for t in run["trials"] if "error" not in t]
        )
        lam = run["settings"].get("lam", 0.0)
        lines.setdefault(run["settings"]["metric"], []).append((lam, values))
    for index, (metric, points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        lams = [lam for lam, _ in points]
        means = np.array([values.mean() for _, values in points])
        halves = np.array([statistics.half_interval(values) for _, values in points])
        color = f"C{index}"
        if lams == [0.0]:  # plain SGD has no lambda
            label = plain(f"{metric} (lambda = 0)")
            axis.axhline(means[0], color=color, ls="--", label=label)
            axis.axhspan(means[0] - halves[0], means[0] + halves[0], color=color, alpha=0.15, lw=0)
        else:
            axis.errorbar(
                lams, means, halves, fmt="o-", color=color, capsize=3, label=plain(metric)
            )
        for lam, values in points:
            axis.plot([lam] * len(values), values, ".", color=color, alpha=0.4, ms=4)
    axis.set_xlabel(r"$\lambda$")
    axis.set_ylabel(f"test {headline.label} {statistics.LAST}")
    axis.set_title(plain(f"{summary['model']} on {summary['dataset']}"))
    trials = max((run["n"] for run in runs), default=0)
    axis.legend(title=f"mean, 95 % interval; dots: trials (n = {trials})", title_fontsize="small")
    axis.grid(alpha=0.3)
    return figure
