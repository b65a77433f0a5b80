"""Label maps, what each run generates for them, and the real images."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.files import save
from experiments.figures.names import plain
from experiments.training import pictures

ROWS = 6
LABELS, GENERATED, REAL = "label map", "generated", "real"


def draw(directory: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes samples.png: the last pictures of each run, of the first seed that has any.

    Args:
      directory: the workdir, with its pictures.
      summary: its summary.json.
    """
    columns: dict[str, np.ndarray] = {}
    for run in summary["runs"]:
        found = _last(directory / "pictures" / run["name"])
        if found is not None:
            shown = found.columns()
            columns.setdefault(LABELS, shown[LABELS])
            columns[run["name"]] = shown[GENERATED]
            columns.setdefault(REAL, shown[REAL])
    if columns:
        columns[REAL] = columns.pop(REAL)  # on the right of all runs
        save(
            panel(columns, f"{summary['model']} on {summary['dataset']}"), directory / "samples.png"
        )


def panel(columns: dict[str, np.ndarray], title: str) -> Figure:
    """Pictures side by side.

    Args:
      columns: by name, uint8 (N, H, W, 3); a row of the figure shows one example.
      title: above.
    """
    rows = min(ROWS, *(len(shown) for shown in columns.values()))
    height, width = next(iter(columns.values())).shape[1:3]
    cell = 1.5 if width < 2 * height else 2.4
    figure = Figure(
        figsize=(cell * len(columns) + 0.2, cell * height / width * rows + 0.6),
        layout="constrained",
    )
    axes = figure.subplots(rows, len(columns), squeeze=False)
    for column, (name, shown) in enumerate(columns.items()):
        for row in range(rows):
            axes[row, column].imshow(shown[row], interpolation="nearest")
            axes[row, column].set_axis_off()
        axes[0, column].set_title(plain(name).replace(",", ",\n"), fontsize="medium")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    figure.suptitle(plain(title))
    return figure


def _last(folder: pathlib.Path) -> pictures.Pictures | None:
    """The newest pictures of the first seed of a run that has any."""
    for trial in sorted(folder.glob("seed_*"), key=lambda path: int(path.name[5:])):
        for step in reversed(pictures.steps(trial)):
            found = pictures.read(trial, step)
            if found is not None:
                return found
    return None
