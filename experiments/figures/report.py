"""Figures of a report: how trials are distributed, and accuracy against epochs.

Figure 5 on the left, and figures 4, 8 and 9, of Channel-directed gradients.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.files import save
from experiments.figures.names import plain
from experiments.figures.training import by_epoch
from experiments.reports.studies import Column
from experiments.training import statistics

_SPLITS = ("train", "test")


def draw(directory: pathlib.Path, columns: Sequence[Column]) -> None:
    """Writes histogram.png, and curves.png or, with several optimizers, curves_OPTIMIZER.png."""
    if any(column.values(run) for column in columns for run in column.runs):
        save(histograms(columns), directory / "histogram.png")
    drawn = [column for column in columns if column.metrics]
    optimizers = list(dict.fromkeys(column.optimizer for column in drawn))
    for optimizer in optimizers:
        name = "curves" if len(optimizers) == 1 else f"curves_{optimizer}"
        chosen = [column for column in drawn if column.optimizer == optimizer]
        save(curves(chosen), directory / f"{name}.png")


def histograms(columns: Sequence[Column]) -> Figure:
    """The test headline of the trials of each run, a panel for each column (figure 5, left)."""
    figure = Figure(figsize=(1.5 + 4 * len(columns), 3.6), layout="constrained")
    panels = figure.subplots(1, len(columns), squeeze=False)[0]
    for axis, column in zip(panels, columns, strict=True):
        values = {
            run: column.headline.scale * np.array(list(column.values(run).values()))
            for run in column.runs
        }
        everything = np.concatenate(list(values.values()))
        axis.set_title(plain(column.title), fontsize="medium")
        axis.set_xlabel(f"test {column.headline.label} {statistics.LAST}; dashed: mean")
        if not len(everything):
            continue
        edges = np.histogram_bin_edges(everything, bins=max(5, len(everything) // 3))
        for index, (run, numbers) in enumerate(values.items()):
            if len(numbers):
                color, label = f"C{index}", plain(f"{run} (n = {len(numbers)})")
                axis.hist(numbers, bins=edges, alpha=0.5, color=color, label=label)
                axis.axvline(numbers.mean(), color=color, ls="--", lw=1.5)
        axis.legend(fontsize="small")
    panels[0].set_ylabel("trials")
    return figure


def curves(columns: Sequence[Column]) -> Figure:
    """Training and test headline against epochs, a row for each column (figures 4, 8, 9).

    Lines are means over trials; what is shaded reaches from the least to the greatest trial.
    """
    figure = Figure(figsize=(9.5, 0.4 + 3.2 * len(columns)), layout="constrained")
    panels = figure.subplots(len(columns), len(_SPLITS), squeeze=False, sharey="row")
    for row, column in zip(panels, columns, strict=True):
        headline = column.headline
        for axis, split in zip(row, _SPLITS, strict=True):
            for run in column.runs:
                key = f"{split}_{headline.name}"
                values = by_epoch(column.metrics, run, key, headline.scale)
                if not values:
                    continue
                epochs = sorted(values)
                label = plain(f"{run} (n = {max(len(v) for v in values.values())})")
                (line,) = axis.plot(epochs, [np.mean(values[e]) for e in epochs], label=label)
                low, high = [min(values[e]) for e in epochs], [max(values[e]) for e in epochs]
                axis.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, lw=0)
            axis.set_title(plain(f"{column.title}: {split}"), fontsize="medium")
            axis.set_xlabel("epoch")
            axis.grid(alpha=0.3)
        row[0].set_ylabel(headline.label)
        row[-1].legend(title="mean; shaded: all trials", title_fontsize="small", fontsize="small")
    return figure
