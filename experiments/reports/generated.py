"""The scores of generated images: what was compared with what, the floor, paired differences."""

from __future__ import annotations

from functools import partial
from typing import Any

from experiments.data.dataset import Dataset
from experiments.reports.compared import by_seed, compared, difference_text
from experiments.training import statistics

_COLUMNS = {
    "generated": "{headline}",
    "real against real": "{headline}_floor",
    "mean IoU of generated": "mean_iou",
    "of real": "mean_iou_of_real",
}
_OF_REAL = ("_floor", "_of_real")  # Numbers of real images alone, the same in every trial.
_WIDTH = 26


def results(summary: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """The scores of every run, each with its paired difference to the first run.

    Args:
      summary: summary.json of a study of a `ConditionalGan`.
      dataset: what was trained on.

    Returns:
      "dataset", "features" and "labels" (what measured the distance, and what found labels),
      "images" (how many were generated), "image_size", "headline", and "runs": for each its name,
      "scores" by name, each with mean, std, n, difference and interval (mean IoU is a share), and
      "spread": its standard deviation of the headline over that of the first run, with an interval.
    """
    headline, runs = statistics.headline_of(summary), summary["runs"]
    settings = runs[0]["settings"]
    names = [f"test_{key.format(headline=headline.name)}" for key in _COLUMNS.values()]
    return {
        "dataset": summary["dataset"],
        "features": "inception" if "inception" in settings else "scene_net",
        "labels": "unet" if "unet" in settings else "scene_net",
        "images": len(dataset.test),
        "image_size": settings["image_size"],
        "headline": headline.name,
        "runs": [
            {
                "run": run["name"],
                "scores": {
                    name.removeprefix("test_"): compared(runs[0], run, partial(_value, name))
                    for name in names
                },
                "spread": statistics.spread_ratio(
                    *(by_seed(one, partial(_value, names[0])) for one in (runs[0], run))
                ),
            }
            for run in runs
        ],
    }


def table(found: dict[str, Any]) -> str:
    """The scores as text: means over trials with the standard deviation, and the differences."""
    if found["features"] == "inception":
        where = "FID, in the features of Inception (images resized bilinearly to 299 x 299)"
    else:
        where = "Frechet distance in the features of scene_net, which is no FID (images at 64 x 64)"
    network = "the U-Net of --unet" if found["labels"] == "unet" else "scene_net"
    count = found["images"]
    width = max(len(run["run"]) for run in found["runs"])
    lines = [
        f"{where}, of {count} generated from {count} test images of {found['image_size']}, and "
        f"of {count} real training images from the same, {statistics.LAST}; lower is better",
        f"mean IoU in percent: labels that {network} finds, against the label maps",
        f"{'run':<{width}}" + "".join(f"{name:>{_WIDTH}}" for name in _COLUMNS),
    ]
    for run in found["runs"]:
        cells = [_mean(name, score) for name, score in run["scores"].items()]
        lines.append(f"{run['run']:<{width}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells))
        if run is not found["runs"][0]:
            cells = [
                "" if name.endswith(_OF_REAL) else _difference(name, score)
                for name, score in run["scores"].items()
            ]
            row = " " * width + "".join(f"{cell:>{_WIDTH}}" for cell in cells)
            lines.append(row.rstrip())
    first, *others = found["runs"]
    lines += [_spread(run, first) for run in others if run["spread"]["ratio"] is not None]
    return "\n".join(lines)


def _value(name: str, trial: dict[str, Any]) -> float | None:
    return trial.get(name)


def _spread(run: dict[str, Any], first: dict[str, Any]) -> str:
    low, high = run["spread"]["interval"]
    return (
        f"{run['run']}: the standard deviation of the distance is {run['spread']['ratio']:.2f} "
        f"[{low:.2f}, {high:.2f}] times that of {first['run']}"
    )


def _mean(name: str, score: dict[str, Any]) -> str:
    if score["mean"] is None:
        return "-"
    scale, digits = _shown(name)
    text = f"{scale * score['mean']:.{digits}f}"
    if score["std"] is not None and not name.endswith(_OF_REAL):
        text += f" (std {scale * score['std']:.{digits}f})"
    return text


def _difference(name: str, score: dict[str, Any]) -> str:
    return difference_text(score, *_shown(name))


def _shown(name: str) -> tuple[float, int]:
    """Scale and digits: mean IoU in percent, distances as they are."""
    return (100, 1) if "iou" in name else (1, 3)
