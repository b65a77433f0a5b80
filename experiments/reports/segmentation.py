"""What a study of segmentation reports besides its headline: scores, gaps, IoU of each class."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.data.dataset import Dataset, Split
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
      "dataset", "model", "background_mean_iou" (of a network that finds background only, over all
      classes that the test split has), and "runs": for each its name, n, "scores" and "gaps" (each
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
                    name: _compared(baseline, run, lambda trial, key=key: trial[key])
                    for name, key in measured.items()
                },
                "gaps": {
                    name: _compared(
                        baseline,
                        run,
                        lambda trial, name=name: trial[f"train_{name}"] - trial[f"test_{name}"],
                    )
                    for name in GAPS
                },
                "class_iou": {
                    name: float(np.mean(found))
                    for name in dataset.class_names
                    if (found := [t[f"test_iou_{name}"] for t in _ended(run)
                                  if f"test_iou_{name}" in t])
                },
            }
        )  # fmt: skip
    return {
        "dataset": summary["dataset"],
        "model": summary["model"],
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
        f"test scores in percent; gap: train - test; background everywhere has mean IoU "
        f"{100 * found['background_mean_iou']:.2f}",
        f"{'run':<{width}}" + "".join(f"{name:>18}" for name in columns),
    ]
    for run in found["runs"]:
        cells = [run[kind][name] for kind, name in columns.values()]
        shown = ["-" if cell["mean"] is None else f"{100 * cell['mean']:.2f}" for cell in cells]
        lines.append(f"{run['run']:<{width}}" + "".join(f"{cell:>18}" for cell in shown))
        if run is not found["runs"][0]:
            shown = [_difference(cell) for cell in cells]
            lines.append(" " * width + "".join(f"{cell:>18}" for cell in shown))
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
        ended = _ended(row)
        if not ended:
            continue
        task, _ = build(run.config, dataset)
        folder = path / "checkpoints" / run.name / f"seed_{ended[0]['seed']}"
        state = read_latest(folder)["state"]
        variables = {"params": state["params"], **state["collections"]}

        @jax.jit
        def predict(variables, image, task=task):
            logits = task.model.apply(variables, task.normalize(image[None]), train=False)
            return logits[0].argmax(axis=-1)

        found[run.name] = np.stack(
            [np.asarray(predict(variables, np.asarray(test.examples[i]))) for i in chosen]
        )
    return chosen, found


def _ended(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [trial for trial in run["trials"] if "error" not in trial]


def _compared(baseline: dict[str, Any], run: dict[str, Any], value) -> dict[str, Any]:
    before, after = ({t["seed"]: value(t) for t in _ended(r)} for r in (baseline, run))
    pair = statistics.paired(before, after)
    described = statistics.describe(list(after.values()))
    return described | {"difference": pair["difference"], "interval": pair["interval"]}


def _difference(cell: dict[str, Any]) -> str:
    if cell["difference"] is None:
        return "-"
    text = f"{100 * cell['difference']:+.2f}"
    if cell["interval"]:
        text += " [{:+.1f}, {:+.1f}]".format(*(100 * x for x in cell["interval"]))
    return text
