"""The scores of generated images as a table: what was compared with what, and the floor."""

from __future__ import annotations

from typing import Any

from experiments.data.dataset import Dataset
from experiments.training import statistics

_COLUMNS = {
    "generated": "{headline}",
    "real against real": "{headline}_floor",
    "mean IoU of generated": "mean_iou",
    "of real": "mean_iou_of_real",
}


def table(summary: dict[str, Any], dataset: Dataset) -> str:
    """Means over the trials of each run, and what they are measured with.

    Args:
      summary: summary.json of a study of a `ConditionalGan`.
      dataset: what was trained on.
    """
    headline = statistics.headline_of(summary)
    settings = summary["runs"][0]["settings"]
    if "inception" in settings:
        where = "FID, in the features of Inception (images resized bilinearly to 299 x 299)"
    else:
        where = "Frechet distance in the features of scene_net, which is no FID (images at 64 x 64)"
    count = len(dataset.test)
    network = "the U-Net of --unet" if "unet" in settings else "scene_net"
    lines = [
        f"{where}, of {count} generated from {count} test images of {settings['image_size']}, and "
        f"of {count} real training images from the same; lower is better",
        f"mean IoU in percent: labels that {network} finds, against the label maps",
    ]
    width = max(len(run["name"]) for run in summary["runs"])
    lines.append(f"{'run':<{width}}" + "".join(f"{name:>24}" for name in _COLUMNS))
    for run in summary["runs"]:
        cells = []
        for key in _COLUMNS.values():
            name = f"test_{key.format(headline=headline.name)}"
            values = [trial[name] for trial in run["trials"] if trial.get(name) is not None]
            scale = 100 if "iou" in name else 1
            mean = scale * statistics.describe(values)["mean"] if values else None
            cells.append("-" if mean is None else f"{mean:.3f}" if scale == 1 else f"{mean:.1f}")
        lines.append(f"{run['name']:<{width}}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(lines)
