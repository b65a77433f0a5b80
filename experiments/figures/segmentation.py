"""Figures of a segmentation: IoU of each class, and pictures with truth and prediction."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from experiments.data import label_images
from experiments.data.dataset import Dataset
from experiments.figures.files import save
from experiments.figures.names import plain

_NAMED_IN_THE_LEGEND = 24


def draw_classes(directory: pathlib.Path, results: dict[str, Any]) -> None:
    """Writes classes.png, IoU of each class for each run.

    Args:
      directory: where to.
      results: of `reports.segmentation.results`.
    """
    save(classes(results), directory / "classes.png")


def draw_panel(
    directory: pathlib.Path, dataset: Dataset, predicted: tuple[np.ndarray, dict[str, np.ndarray]]
) -> None:
    """Writes panel.png: test pictures, their truth and the prediction of each run.

    Args:
      directory: where to.
      dataset: whose test split it is.
      predicted: of `reports.segmentation.predictions`.
    """
    save(panel(dataset, *predicted), directory / "panel.png")


def classes(results: dict[str, Any]) -> Figure:
    """A group of bars for each class, and a dashed line at each run's mean."""
    runs = [run for run in results["runs"] if run["n"]]
    names = list(dict.fromkeys(name for run in runs for name in run["class_iou"]))
    figure = Figure(figsize=(2.5 + 0.42 * len(names), 3.6), layout="constrained")
    axis = figure.subplots()
    width = 0.8 / len(runs)
    for index, run in enumerate(runs):
        heights = [100 * run["class_iou"].get(name, np.nan) for name in names]
        at = np.arange(len(names)) + (index - (len(runs) - 1) / 2) * width
        label = run["run"] if run["n"] == 1 else f"{run['run']} (n = {run['n']})"
        mean = 100 * run["scores"]["mean_iou"]["mean"]
        axis.bar(at, heights, width, color=f"C{index}", label=plain(f"{label}: mean {mean:.1f}"))
        axis.axhline(mean, color=f"C{index}", ls="--", lw=1)
    rotation = 90 if max(map(len, names)) > 3 else 0
    axis.set_xticks(range(len(names)), map(plain, names), rotation=rotation)
    axis.set_ylabel("test IoU (%)")
    axis.set_ylim(0, 100)
    axis.grid(alpha=0.3, axis="y")
    axis.legend(fontsize="small", title="dashed: mean", title_fontsize="small")
    axis.set_title(plain(f"{results['model']} on {results['dataset']}"))
    return figure


def panel(dataset: Dataset, chosen: np.ndarray, predicted: dict[str, np.ndarray]) -> Figure:
    """A column for each picture; below it the truth and the prediction of each run."""
    colors, test = label_images.voc_palette(), dataset.test
    truth = np.asarray(test.labels[chosen])
    rows = {"image": np.asarray(test.examples[chosen]), "truth": colors[truth]}
    rows |= {name: colors[labels] for name, labels in predicted.items()}
    height, width = dataset.example_shape[:2]
    size = 1.5
    figure = Figure(
        figsize=(1.6 + size * len(chosen), 0.3 + (size * height / width + 0.05) * len(rows)),
        layout="constrained",
    )
    axes = figure.subplots(len(rows), len(chosen), squeeze=False)
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        line[0].set_ylabel(plain(name).replace(",", ",\n"))  # A tuned run has a long name.
        for axis, picture in zip(line, pictures, strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
    shown = {int(label) for labels in (truth, *predicted.values()) for label in np.unique(labels)}
    names = dict(enumerate(dataset.class_names))
    if dataset.ignore_label is not None:
        names[dataset.ignore_label] = "void"
    patches = [
        Patch(facecolor=to_rgb(colors[label] / 255), edgecolor="0.5", label=plain(names[label]))
        for label in sorted(shown)[:_NAMED_IN_THE_LEGEND]
    ]
    figure.legend(handles=patches, loc="outside right center", fontsize="small", frameon=False)
    return figure
