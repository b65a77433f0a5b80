"""What a study of segmentation reports besides its headline: scores, gaps, IoU of each class."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.reports.compared import compared, difference_text, ended
from experiments.tasks import scores
from experiments.training import statistics
from experiments.training.checkpoints import read_latest
from experiments.training.study import Build, Run

SCORES = ("mean_iou", "pixel_accuracy", "image_iou")
BATCH = "_batch_statistics"
# Train minus test. Figure 7 of Channel-directed gradients reports that of the accuracy.
GAPS = ("pixel_accuracy", "mean_iou")
_ROWS_AT_ONCE = 64

Predictions = dict[str, np.ndarray]


def results(summary: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The scores of every run, each with its paired difference to the first run.

    Args:
      summary: summary.json of a study of `tasks.segmentation.segmentation`.
      dataset: what it was trained on.

    Returns:
      "dataset", "model", "background" (the name of class 0; on Cityscapes it is the road),
      "background_mean_iou" (of a network that finds it alone, over all classes that the test split
      has), and "runs": for each its name, n, "scores" and "gaps" (each
      with mean, std, n, difference and interval, as shares) and "class_iou" (mean over trials).
    """
    baseline = summary["runs"][0]
    rows = []
    for run in summary["runs"]:
        measured = {
            **{name: f"test_{name}" for name in SCORES},
            **{name + BATCH: f"test_{name}{BATCH}" for name in SCORES},
        }
        rows.append(
            {
                "run": run["name"],
                "n": run["n"],
                "scores": {
                    name: compared(baseline, run, lambda trial, key=key: trial[key])
                    for name, key in measured.items()
                },
                "gaps": {name: compared(baseline, run, partial(_gap, name)) for name in GAPS},
                "class_iou": _class_iou(run, dataset),
            }
        )
    return {
        "dataset": summary["dataset"],
        "model": summary["model"],
        "background": dataset.class_names[0],
        "background_mean_iou": background_mean_iou(dataset.test, dataset),
        "runs": rows,
    }


def background_mean_iou(split: Split, dataset: Dataset) -> float:
    """The mean IoU that finding class 0 everywhere gives, over the classes that a split has."""
    counts = np.zeros(dataset.num_classes, np.int64)
    for start in range(0, len(split), _ROWS_AT_ONCE):
        rows = np.asarray(split.labels[start : start + _ROWS_AT_ONCE])
        counted = rows if dataset.ignore_label is None else rows[rows != dataset.ignore_label]
        counts += np.bincount(counted.ravel(), minlength=len(counts))
    confusion = np.zeros((len(counts), len(counts)), np.int64)
    confusion[:, 0] = counts
    return scores.mean_iou(confusion)


def table(found: dict[str, Any]) -> str:
    """The scores as text, in percent."""
    columns = {
        "mean IoU": ("scores", "mean_iou"),
        "with batch stat.": ("scores", "mean_iou" + BATCH),
        "pixel accuracy": ("scores", "pixel_accuracy"),
        "image IoU": ("scores", "image_iou"),
        "accuracy gap": ("gaps", "pixel_accuracy"),
        "mean IoU gap": ("gaps", "mean_iou"),
    }
    width = max(len(run["run"]) for run in found["runs"])
    lines = [
        f"test scores in percent, {statistics.LAST}; gap: train - test; {found['background']} "
        f"everywhere has mean IoU {100 * found['background_mean_iou']:.2f}",
        f"{'run':<{width}}" + "".join(f"{name:>24}" for name in columns),
    ]
    for run in found["runs"]:
        cells = [run[kind][name] for kind, name in columns.values()]
        shown = ["-" if cell["mean"] is None else f"{100 * cell['mean']:.2f}" for cell in cells]
        lines.append(f"{run['run']:<{width}}" + "".join(f"{cell:>24}" for cell in shown))
        if run is not found["runs"][0]:
            shown = [difference_text(cell) for cell in cells]
            lines.append(" " * width + "".join(f"{cell:>24}" for cell in shown))
    return "\n".join(lines)


def predictions(
    path: pathlib.Path,
    summary: dict[str, Any],
    dataset: Dataset,
    runs: Sequence[Run],
    build: Build,
    count: int = 6,
) -> tuple[np.ndarray, Predictions]:
    """What the trained networks say about some test pictures.

    Args:
      path: the workdir; the last checkpoint of each run's first trial is read.
      summary: its summary.json.
      dataset: what was trained on.
      runs: the runs with their configurations.
      build: the experiment's.
      count: pictures, evenly spaced in the test split.

    Returns:
      The indices of the pictures in the test split (count,), and for each run with a finished
      trial the predicted classes (count, H, W).
    """
    test = dataset.test
    chosen = np.unique(np.linspace(0, len(test) - 1, count).round().astype(int))
    found = {}
    for row, run in zip(summary["runs"], runs, strict=True):
        trials = ended(row)
        if not trials:
            continue
        task, _ = build(run.config, dataset)
        folder = path / "checkpoints" / run.name / f"seed_{trials[0]['seed']}"
        state = read_latest(folder)["state"]
        variables = {"params": state["params"], **state["collections"]}
        inputs = [task.normalize(np.asarray(test.examples[i])[None]) for i in chosen]
        found[run.name] = np.stack([_predict(task.model, variables, x)[0] for x in inputs])
    return chosen, found


# Compiled once for runs that differ in their metric alone.
@partial(jax.jit, static_argnums=0)
def _predict(model: nn.Module, variables: Any, inputs: jax.Array) -> jax.Array:
    return model.apply(variables, inputs, train=False).argmax(axis=-1)


def _gap(name: str, trial: dict[str, Any]) -> float:
    return trial[f"train_{name}"] - trial[f"test_{name}"]


def _class_iou(run: dict[str, Any], dataset: Dataset) -> dict[str, float]:
    """The mean over trials of the IoU of each class that occurs in the test split."""
    keys = {name: f"test_iou_{name}" for name in dataset.class_names}
    values = {name: [t[key] for t in ended(run) if key in t] for name, key in keys.items()}
    return {name: float(np.mean(found)) for name, found in values.items() if found}
