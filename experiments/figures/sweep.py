"""The headline against a swept setting: figures 8 to 10 of the OptFlow paper.

And against each of the settings that a random search drew.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from experiments.figures.files import save
from experiments.figures.names import plain
from experiments.training import statistics, sweep
from experiments.training.task import Headline

LABELS = {
    "optflow_strength": "OptFlow regularization strength",
    "l2_strength": r"$L_2$ regularization strength",
    "dropout": "dropout probability",
    "learning_rate": "learning rate",
    "alpha": r"OptFlow smoothness $\alpha$",
}


def draw_sweep(directory: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes sweep_NAME.png for each setting that was swept, and sweep.png with all of them.

    A setting that is a choice, a grid, and a study without validation examples get a bar for each
    run instead of a curve (runs.png). Every figure is written as a .pdf too.

    Args:
      directory: where to.
      summary: summary.json, the baseline first.
    """
    runs, headline = summary["runs"], statistics.headline_of(summary)
    single = [run for run in runs[1:] if "," not in run["name"]]
    names = [name for name in dict.fromkeys(sweep.swept(run) for run in single) if name]
    # Curves show what was chosen by validation; without it bars show the test split.
    curves = bool(sweep.ended(runs, headline))
    numeric = [name for name in names if curves and _is_number(runs[0]["settings"].get(name))]
    for name in numeric:
        save(strengths(summary, [name]), directory / f"sweep_{name}.png")
    if len(numeric) > 1:
        save(strengths(summary, numeric), directory / "sweep.png")
    if len(numeric) < len(names) or len(single) < len(runs) - 1:
        save(bars(summary, headline), directory / "runs.png")


def draw_search(directory: pathlib.Path, summary: dict[str, Any], names: Sequence[str]) -> None:
    """Writes search.png: best validation headline against each setting, the best run marked.

    Args:
      directory: where to.
      summary: summary.json.
      names: of the settings that were drawn.
    """
    headline = statistics.headline_of(summary)
    runs = sweep.ended(summary["runs"], headline)
    scores = [headline.scale * np.mean(sweep.values(run, "validation", headline)) for run in runs]
    best = runs.index(sweep.best_by_validation(runs, headline))
    figure = Figure(figsize=(3.2 * len(names), 3.2), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        values = [run["settings"].get(name, np.nan) for run in runs]
        axis.plot(values, scores, "o", color="C0")
        axis.plot(values[best], scores[best], "*", color="C3", ms=14, label="best")
        _logarithmic(axis, values)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(LABELS.get(name, plain(name)))
        axis.grid(alpha=0.3)
        axis.tick_params(axis="x", which="both", labelsize=7)
    axes[0].set_ylabel(f"best validation {headline.label}")
    figure.suptitle(_title(summary))
    axes[-1].legend(title=f"{len(runs)} runs")
    save(figure, directory / "search.png")


def strengths(summary: dict[str, Any], names: Sequence[str]) -> Figure:
    """Best validation and final training headline against each setting, every trial as a dot."""
    runs, headline = summary["runs"], statistics.headline_of(summary)
    figure = Figure(figsize=(1.5 + 4 * len(names), 3.8), layout="constrained")
    axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, names, strict=True):
        points = [runs[0], *(run for run in runs[1:] if sweep.swept(run) == name)]
        _strength(axis, sweep.ended(points, headline), name, headline)
    axes[0].set_ylabel(headline.label)
    axes[0].legend(title=f"mean and trials, n = {max(run['n'] for run in runs)}")
    figure.suptitle(_title(summary))
    return figure


def bars(summary: dict[str, Any], headline: Headline) -> Figure:
    """The mean test headline of each run as a bar, with its 95 % interval and every trial."""
    runs = [run for run in summary["runs"] if run["n"]]
    figure = Figure(figsize=(6.0, 1.2 + 0.35 * len(runs)), layout="constrained")
    axis = figure.subplots()
    values = [
        [headline.scale * t[f"test_{headline.name}"] for t in run["trials"] if "error" not in t]
        for run in runs
    ]
    means = [np.mean(v) for v in values]
    halves = [statistics.half_interval(v) for v in values]
    rows = np.arange(len(runs))
    axis.barh(rows, means, xerr=halves, color="C0", alpha=0.6, capsize=3)
    for row, numbers in zip(rows, values, strict=True):
        axis.plot(numbers, [row] * len(numbers), ".", color="k", alpha=0.5, ms=4)
    axis.set_yticks(rows, [plain(_name(run, summary["runs"])) for run in runs])
    axis.invert_yaxis()
    everything = np.concatenate(values)
    margin = 0.15 * (np.ptp(everything) or 1.0) + max(halves)
    low, high = everything.min() - margin, everything.max() + margin
    axis.set_xlim(
        low if everything.min() < 0 else max(0.0, low),
        min(high, 100.0) if headline.percent else high,
    )
    axis.set_xlabel(f"test {headline.label} {statistics.LAST}")
    figure.supxlabel("bars: mean with 95 % interval; dots: trials", fontsize="small")
    axis.grid(alpha=0.3, axis="x")
    axis.set_title(_title(summary))
    return figure


def _title(summary: dict[str, Any]) -> str:
    return plain(f"{summary['model']} on {summary['dataset']}")


def _name(run: dict[str, Any], runs: Sequence[dict[str, Any]]) -> str:
    """The name of a run; the baseline's says what it is of that the others change."""
    changed = [part.partition("=")[0] for other in runs for part in other["name"].split(",")]
    names = [name for name in dict.fromkeys(changed) if name in run["settings"]]
    if run["name"] != "baseline" or not names:
        return run["name"]
    own = ",".join(f"{name}={sweep.text_of(run['settings'][name])}" for name in names)
    return f"baseline: {own}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _strength(axis: Axes, runs: list[dict[str, Any]], name: str, headline: Headline) -> None:
    runs = sorted(runs, key=lambda run: run["settings"][name])
    values = [run["settings"][name] for run in runs]
    for which, label, color in (
        ("train", "training, at the end", "C1"),
        ("validation", "validation, best", "C0"),
    ):
        scores = [headline.scale * np.array(sweep.values(run, which, headline)) for run in runs]
        axis.plot(values, [s.mean() for s in scores], "-o", color=color, label=label)
        for value, dots in zip(values, scores, strict=True):
            axis.plot([value] * len(dots), dots, ".", color=color, alpha=0.35, ms=5)
    if name != "dropout":
        _logarithmic(axis, values)
    axis.set_xlabel(LABELS.get(name, plain(name)))
    axis.grid(alpha=0.3)


def _logarithmic(axis: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis that has a place for zero."""
    positive = [v for v in values if v > 0]
    if positive:
        axis.set_xscale("symlog", linthresh=min(positive), linscale=0.5)
