"""Figures of a study, from its saved results: curves with their spread, and a histogram."""

from __future__ import annotations

import pathlib
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.figures.files import save
from experiments.figures.names import plain
from experiments.training import statistics
from experiments.training.task import Headline
from experiments.training.workdir import parse_metrics

TRIALS_FOR_A_HISTOGRAM = 5
FEW_RUNS, LEGEND_ROWS = 6, 20
_SPLITS = ("train", "validation", "test")


def draw(directory: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes loss and headline against epochs, and a histogram with five trials of a run or more.

    Args:
      directory: the workdir; metrics.jsonl is read there, and the figures are written there.
      summary: its summary.json.
    """
    metrics = _metrics(directory)
    if not metrics:
        return
    title = f"{summary['model']} on {summary['dataset']}"
    headline = statistics.headline_of(summary)
    for name in dict.fromkeys((headline.name, "loss")):
        if any(f"{split}_{name}" in metrics[-1] for split in _SPLITS):
            about = headline if name == headline.name else Headline(name, False)
            save(curves(metrics, about, title), directory / f"{name}.png")
    if any(run["n"] >= TRIALS_FOR_A_HISTOGRAM for run in summary["runs"]):
        save(histogram(summary, title), directory / "histogram.png")


def curves(metrics: list[dict[str, Any]], quantity: Headline, title: str) -> Figure:
    """Mean over trials of a quantity against epochs, a panel for each split.

    The range from the lowest to the highest trial is shaded, unless there are many runs, whose
    curves it would hide. The legend says what is drawn.

    Args:
      metrics: lines of metrics.jsonl.
      quantity: its name without the split, and how it is shown.
      title: above the panels.
    """
    splits = [s for s in _SPLITS if f"{s}_{quantity.name}" in metrics[-1]]
    figure = Figure(figsize=(4.5 * len(splits), 3.6), layout="constrained")
    panels = figure.subplots(1, len(splits), sharey=True, squeeze=False)[0]
    runs = list(dict.fromkeys(line["run"] for line in metrics))
    if len(runs) > FEW_RUNS:
        for axis in panels:
            colors = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(runs)))
            axis.set_prop_cycle(color=colors)
    shaded, averaged = False, False
    for axis, split in zip(panels, splits, strict=True):
        for run in runs:
            values = by_epoch(metrics, run, f"{split}_{quantity.name}", quantity.scale)
            if not values:
                continue
            epochs = sorted(values)
            trials = max(len(v) for v in values.values())
            label = plain(run if trials == 1 else f"{run} (n = {trials})")
            averaged = averaged or trials > 1
            (curve,) = axis.plot(epochs, [np.mean(values[e]) for e in epochs], ".-", label=label)
            if trials > 1 and len(runs) <= FEW_RUNS:
                low, high = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
                color = curve.get_color()
                axis.fill_between(epochs, low, high, color=color, alpha=0.2, lw=0)
                if len(epochs) == 1:  # an area without a width
                    axis.vlines(epochs, low, high, color=color, alpha=0.2, lw=6)
                shaded = True
        axis.set_xlabel("epoch")
        axis.set_title(split)
        axis.grid(alpha=0.3)
    panels[0].set_ylabel(quantity.label)
    handles, labels = panels[-1].get_legend_handles_labels()
    note = "mean of n trials" if averaged else None
    if shaded:
        note = "mean of n trials; shaded: lowest to highest"
    if len(labels) <= FEW_RUNS:
        panels[-1].legend(title=note, title_fontsize="small", fontsize="small")
    else:  # Beside the panels, in as many columns as it takes.
        columns = -(-len(labels) // LEGEND_ROWS)
        figure.set_figwidth(figure.get_figwidth() + 2.4 * columns)
        figure.legend(handles, labels, loc="outside right", fontsize=7, ncols=columns, title=note)
    figure.suptitle(plain(title))
    return figure


def histogram(summary: dict[str, Any], title: str) -> Figure:
    """How the test headlines of the trials of each run are distributed."""
    headline = statistics.headline_of(summary)
    key = f"test_{headline.name}"
    values = {
        run["name"]: [headline.scale * t[key] for t in run["trials"] if t.get(key) is not None]
        for run in summary["runs"]
    }
    everything = np.concatenate([v for v in values.values() if v])
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    edges = np.histogram_bin_edges(everything, bins=max(5, len(everything) // 3))
    for index, (name, numbers) in enumerate(values.items()):
        if not numbers:
            continue
        color, label = f"C{index}", plain(f"{name} (n = {len(numbers)})")
        axis.hist(numbers, bins=edges, alpha=0.5, color=color, label=label)
        axis.axvline(np.mean(numbers), color=color, ls="--", lw=1.5)
    axis.set_xlabel(f"test {headline.label} {statistics.LAST}; dashed: mean")
    axis.set_ylabel("trials")
    axis.legend()
    axis.set_title(plain(title))
    return figure


def by_epoch(
    metrics: list[dict[str, Any]], run: str, key: str, scale: float
) -> dict[float, list[float]]:
    """The values of a run's trials by epoch, times `scale`, from the lines of metrics.jsonl."""
    values: dict[float, list[float]] = {}
    for line in metrics:
        if line["run"] == run and line.get(key) is not None:
            values.setdefault(line["epoch"], []).append(scale * line[key])
    return values


def _metrics(directory: pathlib.Path) -> list[dict[str, Any]]:
    try:
        text = (directory / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return parse_metrics(text)[0]
