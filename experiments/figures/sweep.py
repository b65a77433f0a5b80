"""Accuracy against the strength of a regularizer: figures 8 to 10 of the OptFlow paper."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from experiments.figures.training import save
from experiments.training import sweep

LABELS = {
    "optflow_strength": "OptFlow regularization strength",
    "l2_strength": r"$L_2$ regularization strength",
    "dropout": "dropout probability",
    "learning_rate": "learning rate",
    "alpha": r"OptFlow smoothness $\alpha$",
}


def draw(directory: pathlib.Path, runs: list[dict[str, Any]]) -> None:
    """Writes sweep_NAME.png for each setting that was swept.

    Args:
      directory: where to.
      runs: "runs" of summary.json, the baseline first.
    """
    for name in dict.fromkeys(sweep.swept(run) for run in runs[1:]):
        points = [runs[0], *(run for run in runs[1:] if sweep.swept(run) == name)]
        save(strength(points, name), directory / f"sweep_{name}.png")


def strength(runs: list[dict[str, Any]], name: str) -> Figure:
    """Best validation and final training accuracy against one setting, every trial as a dot."""
    runs = sorted((r for r in runs if r["n"]), key=lambda run: run["settings"][name])
    values = [run["settings"][name] for run in runs]
    figure, axis = plt.subplots(figsize=(5.5, 3.8), layout="constrained")
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
    axis.set_ylabel("accuracy (%)")
    axis.grid(alpha=0.3)
    axis.legend(title=f"mean and trials, n = {max(run['n'] for run in runs)}")
    return figure
