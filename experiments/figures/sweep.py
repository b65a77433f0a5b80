"""Accuracy against the strength of a regularizer: figures 8 to 10 of the OptFlow paper.

And against each of the settings that a random search drew.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.figures.training import save
from experiments.training import sweep

LABELS = {
    "optflow_strength": "OptFlow regularization strength",
    "l2_strength": r"$L_2$ regularization strength",
    "dropout": "dropout probability",
    "learning_rate": "learning rate",
    "alpha": r"OptFlow smoothness $\alpha$",
}


def draw_sweep(directory: pathlib.Path, runs: list[dict[str, Any]]) -> None:
    """Writes sweep_NAME.png for each setting that was swept, and sweep.png with all of them.

    Args:
      directory: where to.
      runs: "runs" of summary.json, the baseline first.
    """
    names = [name for name in dict.fromkeys(sweep.swept(run) for run in runs[1:]) if name]
    for name in names:
        save(strengths(runs, [name]), directory / f"sweep_{name}.png")
    if len(names) > 1:
        save(strengths(runs, names), directory / "sweep.png")


def draw_search(directory: pathlib.Path, runs: list[dict[str, Any]], names: Sequence[str]) -> None:
    """Writes search.png: best validation accuracy against each setting, the best run marked.

    Args:
      directory: where to.
      runs: "runs" of summary.json that ended.
      names: of the settings that were drawn.
    """
    accuracy = [100 * np.mean(sweep.accuracies(run, "validation")) for run in runs]
    best = int(np.argmax(accuracy))
    figure, axes = plt.subplots(
        1, len(names), figsize=(3.2 * len(names), 3.2), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, name in zip(axes[0], names, strict=True):
        values = [run["settings"][name] for run in runs]
        axis.semilogx(values, accuracy, "o", color="C0")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.semilogx(values[best], accuracy[best], "*", color="C3", ms=14, label="best")
        axis.set_xlabel(LABELS.get(name, name))
        axis.grid(alpha=0.3)
    for axis in axes.flat:
        axis.tick_params(axis="x", which="both", labelsize=7)
    axes[0, 0].set_ylabel("best validation accuracy (%)")
    figure.suptitle(_title(runs))
    axes[0, -1].legend(title=f"{len(runs)} runs")
    save(figure, directory / "search.png")


def strengths(runs: list[dict[str, Any]], names: Sequence[str]) -> Figure:
    """Best validation and final training accuracy against each setting, every trial as a dot."""
    figure, axes = plt.subplots(
        1, len(names), figsize=(1.5 + 4 * len(names), 3.8), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis, name in zip(axes[0], names, strict=True):
        points = [runs[0], *(run for run in runs[1:] if sweep.swept(run) == name)]
        _strength(axis, sweep.ended(points), name)
    axes[0, 0].set_ylabel("accuracy (%)")
    axes[0, 0].legend(title=f"mean and trials, n = {max(run['n'] for run in runs)}")
    figure.suptitle(_title(runs))
    return figure


def _title(runs: list[dict[str, Any]]) -> str:
    settings = runs[0]["settings"]
    return f"{settings['model']} on {settings['dataset']}"


def _strength(axis: Axes, runs: list[dict[str, Any]], name: str) -> None:
    runs = sorted(runs, key=lambda run: run["settings"][name])
    values = [run["settings"][name] for run in runs]
    for which, label, color in (
        ("train", "training, at the end", "C1"),
        ("validation", "validation, best", "C0"),
    ):
        accuracy = [100 * np.array(sweep.accuracies(run, which)) for run in runs]
        axis.plot(values, [a.mean() for a in accuracy], "-o", color=color, label=label)
        for value, dots in zip(values, accuracy, strict=True):
            axis.plot([value] * len(dots), dots, ".", color=color, alpha=0.35, ms=5)
    positive = [v for v in values if v > 0]
    if name != "dropout" and positive:
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
    axis.set_xlabel(LABELS.get(name, name))
    axis.grid(alpha=0.3)
