"""Figures of the correlation between filters, from the results of `channel_grad.correlation`."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from experiments.figures.names import plain

DIRECTIONS = ("output", "input")
_PARTS = {"output": "C0", "input": "C1"}
_MOST_COLUMNS, _MOST_POINTS = 600, 400


def by_distance(layers: dict[str, dict[str, Any]], title: str) -> Figure:
    """Correlation against |i - j| along outputs and inputs (figure 11).

    A thin line for each layer, a thick one for their mean, and the mean 95 % interval of chance.

    Args:
      layers: as in correlation.json.
      title: above the figure.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axis, direction in zip(panels, DIRECTIONS, strict=True):
        lines = [layer[direction] for layer in layers.values() if layer[direction]]
        for line in lines:
            axis.plot(1 + np.arange(len(line)), line, color="0.75", lw=0.6)
        if lines:
            chance = [layer["chance"][direction] for layer in layers.values() if layer[direction]]
            low, high = (_mean_of_lines([c[side] for c in chance]) for side in ("low", "high"))
            distance = 1 + np.arange(len(low))
            axis.fill_between(
                distance, low, high, color=_PARTS[direction], alpha=0.25, lw=0,
                label="chance, 95 %",
            )  # fmt: skip
            axis.plot(
                distance, _mean_of_lines(lines), color=_PARTS[direction], lw=2,
                label=f"mean of {len(lines)} layers",
            )  # fmt: skip
            axis.legend(fontsize=7)
        axis.axhline(0, color="0.4", lw=0.6)
        axis.set_xlabel(f"|i - j|, {direction} channels")
        axis.set_title(f"along {direction} channels", fontsize=9)
        axis.grid(alpha=0.3)
    panels[0].set_ylabel("correlation of filters i and j")
    figure.suptitle(plain(title), fontsize=9)
    return figure


def runs_by_distance(runs: dict[str, dict[str, Any]], title: str) -> Figure:
    """Correlation against |i - j| for each run: mean and 95 % interval over trials (figure 11).

    Args:
      runs: as in runs.json.
      title: above the figure.
    """
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axis, direction in zip(panels, DIRECTIONS, strict=True):
        for number, (name, run) in enumerate(runs.items()):
            mean = np.asarray(run[direction]["mean"], float)
            half = np.asarray(run[direction]["half_interval"], float)
            distance = 1 + np.arange(len(mean))
            count = len(run["seeds"])
            label = plain(f"{name}, {count} trial{'s' * (count > 1)}")
            axis.plot(distance, mean, color=f"C{number}", label=label)
            axis.fill_between(
                distance, mean - half, mean + half, color=f"C{number}", alpha=0.25, lw=0
            )
        axis.axhline(0, color="0.4", lw=0.6)
        axis.set_xlabel(f"|i - j|, {direction} channels")
        axis.set_title(f"along {direction} channels", fontsize=9)
        axis.grid(alpha=0.3)
    panels[0].legend(fontsize=7)
    panels[0].set_ylabel("correlation of filters i and j")
    figure.suptitle(plain(title), fontsize=9)
    return figure


def histograms(
    densities: dict[str, np.ndarray], edges: np.ndarray, means: dict[str, float], title: str
) -> Figure:
    """Histogram of the correlation of all pairs, along outputs and inputs (figure 13).

    The line is what chance would give: if a filter is as likely as its negative, the histogram is
    symmetric, so it is averaged with its mirror image.

    Args:
      densities: for "output" and "input", (B,).
      edges: (B + 1,).
      means: for "output" and "input", the mean over all pairs.
      title: above the figure.
    """
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    for axis, direction in zip(figure.subplots(1, 2), DIRECTIONS, strict=True):
        density = densities[direction]
        axis.stairs(density, edges, fill=True, color=_PARTS[direction], alpha=0.5)
        axis.stairs((density + density[::-1]) / 2, edges, color="0.2", lw=1, label="symmetric")
        axis.axvline(means[direction], color=_PARTS[direction], lw=1.5, ls="--",
                     label=f"mean {means[direction]:.3f}")  # fmt: skip
        widest = np.abs(edges[:-1][density > 0]).max(initial=0.1) + edges[1] - edges[0]
        axis.set_xlim(-widest, widest)
        axis.set_xlabel(f"correlation of two {direction} channels")
        axis.legend(fontsize=7)
    figure.axes[0].set_ylabel("density")
    figure.suptitle(plain(title), fontsize=9)
    return figure


def kernel_picture(kernel: np.ndarray, title: str) -> Figure:
    """A kernel as a picture: a row for each output channel (figure 1).

    A weight that all filters share is a vertical line.

    Args:
      kernel: (out, in, *window), balanced, so that every channel has mean square one.
      title: above the figure.
    """
    picture = kernel.reshape(len(kernel), -1)[:, :_MOST_COLUMNS]
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axis = figure.subplots()
    greatest = float(np.quantile(np.abs(picture), 0.99)) or 1.0
    shown = axis.imshow(
        picture, cmap="RdBu_r", vmin=-greatest, vmax=greatest, aspect="auto", interpolation="none"
    )
    figure.colorbar(shown, label="weight (balanced)")
    axis.set_xlabel(f"input channel and position, the first {picture.shape[1]}")
    axis.set_ylabel("output channel")
    figure.suptitle(plain(title), fontsize=9)
    return figure


def mean_against_deviation(
    statistics: dict[str, tuple[np.ndarray, np.ndarray]], title: str
) -> Figure:
    """Mean against deviation over the output channels, a colour for each layer (figure 14).

    Args:
      statistics: for each layer, means and deviations, (lines,) each.
      title: above the figure.
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    colours = np.linspace(0, 1, max(len(statistics), 2))
    for (means, deviations), colour in zip(statistics.values(), colours, strict=False):
        # Evenly spaced, so that a large layer does not hide the others.
        chosen = np.linspace(0, len(means) - 1, min(len(means), _MOST_POINTS)).astype(int)
        axis.scatter(
            means[chosen], deviations[chosen], s=3, lw=0, alpha=0.6,
            color=matplotlib.colormaps["turbo"](colour), rasterized=True,
        )  # fmt: skip
    axis.axvline(0, color="0.4", lw=0.6)
    axis.set_xlabel("mean over output channels")
    axis.set_ylabel("standard deviation over output channels")
    axis.grid(alpha=0.3)
    text = f"{title}\na colour for each of {len(statistics)} layers"
    figure.suptitle(plain(text), fontsize=9)
    return figure


def _mean_of_lines(lines: list[list[float]]) -> np.ndarray:
    """The mean at each distance over the lines that reach it."""
    filled = np.full((len(lines), max(len(line) for line in lines)), np.nan)
    for row, line in zip(filled, lines, strict=True):
        row[: len(line)] = [np.nan if value is None else value for value in line]
    known = ~np.isnan(filled)
    sums, counts = np.where(known, filled, 0).sum(axis=0), known.sum(axis=0)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
