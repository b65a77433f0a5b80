"""Figures of a training run, from its saved results: curves with their spread, and a histogram."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

TRIALS_FOR_A_HISTOGRAM = 5
FEW_RUNS, LEGEND_ROWS = 6, 20


def draw(directory: pathlib.Path, summary: dict[str, Any], metrics: list[dict[str, Any]]) -> None:
    """Writes accuracy.png and loss.png, and histogram.png with five trials of a run or more.

    Args:
      directory: where to.
      summary: summary.json.
      metrics: the lines of metrics.jsonl.
    """
    if not metrics:
        return
    title = f"{summary['model']} on {summary['dataset']}"
    for quantity in ("accuracy", "loss"):
        save(curves(metrics, quantity, title), directory / f"{quantity}.png")
    if any(run["n"] >= TRIALS_FOR_A_HISTOGRAM for run in summary["runs"]):
        save(histogram(summary, title), directory / "histogram.png")


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes the figure whole or not at all, and closes it."""
    temporary = path.with_name(f".{path.name}")
    try:
        figure.savefig(temporary, dpi=150, format="png")
        temporary.replace(path)
    finally:
        plt.close(figure)
        temporary.unlink(missing_ok=True)


def curves(metrics: list[dict[str, Any]], quantity: str, title: str) -> Figure:
    """Mean over trials of "accuracy" or "loss" against epochs.

    Shaded from the least to the greatest trial where that does not hide the curves of many runs.
    """
    splits = [s for s in ("train", "validation", "test") if f"{s}_{quantity}" in metrics[-1]]
    figure, panels = plt.subplots(
        1, len(splits), figsize=(4.5 * len(splits), 3.6), sharey=True, layout="constrained"
    )
    runs = list(dict.fromkeys(line["run"] for line in metrics))
    if len(runs) > FEW_RUNS:
        for axis in panels:
            axis.set_prop_cycle(color=plt.get_cmap("turbo")(np.linspace(0.05, 0.95, len(runs))))
    percent = 100 if quantity == "accuracy" else 1
    for axis, split in zip(panels, splits, strict=True):
        for run in runs:
            values: dict[float, list[float]] = {}
            for line in metrics:
                if line["run"] == run and line.get(f"{split}_{quantity}") is not None:
                    values.setdefault(line["epoch"], []).append(
                        percent * line[f"{split}_{quantity}"]
                    )
            epochs = sorted(values)
            trials = max(len(v) for v in values.values())
            label = run if trials == 1 else f"{run} (n = {trials})"
            (curve,) = axis.plot(epochs, [np.mean(values[e]) for e in epochs], ".-", label=label)
            if trials > 1 and len(runs) <= FEW_RUNS:
                low, high = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
                axis.fill_between(epochs, low, high, color=curve.get_color(), alpha=0.2, lw=0)
        axis.set_xlabel("epoch")
        axis.set_title(split)
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy (%)" if quantity == "accuracy" else "cross-entropy (nats)")
    handles, labels = panels[-1].get_legend_handles_labels()
    if len(labels) <= FEW_RUNS:
        panels[-1].legend()
    else:  # Beside the panels, in as many columns as it takes.
        columns = -(-len(labels) // LEGEND_ROWS)
        figure.set_figwidth(figure.get_figwidth() + 2.4 * columns)
        figure.legend(handles, labels, loc="outside right", fontsize=7, ncols=columns)
    figure.suptitle(title)
    return figure


def histogram(summary: dict[str, Any], title: str) -> Figure:
    """How the test accuracies of the trials of each run are distributed."""
    accuracies = {
        run["name"]: [100 * t["test_accuracy"] for t in run["trials"] if t["test_accuracy"]]
        for run in summary["runs"]
    }
    everything = np.concatenate([v for v in accuracies.values() if v])
    figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    edges = np.histogram_bin_edges(everything, bins=max(5, len(everything) // 3))
    for index, (name, values) in enumerate(accuracies.items()):
        if not values:
            continue
        color = f"C{index}"
        axis.hist(values, bins=edges, alpha=0.5, color=color, label=f"{name} (n = {len(values)})")
        axis.axvline(np.mean(values), color=color, ls="--", lw=1.5)
    axis.set_xlabel("test accuracy (%); dashed: mean")
    axis.set_ylabel("trials")
    axis.legend()
    axis.set_title(title)
    return figure
