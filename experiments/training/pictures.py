"""The pictures of a trial: a .png for each evaluation, to watch while it trains.

A row shows one example, a column one kind of picture (the label map, what was generated, the real
image). The names of the columns are in the file, as the PNG text "columns".
"""

from __future__ import annotations

import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from experiments.system.files import remove_unfinished, write_bytes


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures as they are stored.

    Attributes:
      names: of the columns.
      grid: uint8 (rows * H, columns * W, 3).
      rows: number of examples.
    """

    names: tuple[str, ...]
    grid: np.ndarray
    rows: int

    def columns(self) -> dict[str, np.ndarray]:
        """The pictures by the name of their column, uint8 (rows, H, W, 3)."""
        height, width = self.grid.shape[0] // self.rows, self.grid.shape[1] // len(self.names)
        cells = self.grid.reshape(self.rows, height, len(self.names), width, 3)
        return {name: cells[:, :, index] for index, name in enumerate(self.names)}


def write(folder: pathlib.Path, step: int, columns: Mapping[str, np.ndarray]) -> None:
    """Writes STEP.png into a folder, whole or not at all; nothing where there are no pictures.

    Args:
      folder: of the trial; it is made.
      step: steps done.
      columns: pictures of the same examples by the name of their column, uint8 (N, H, W, 3).
    """
    if not columns:
        return
    from PIL import Image, PngImagePlugin

    grid = np.concatenate([np.concatenate(list(kind)) for kind in columns.values()], axis=1)
    rows = len(next(iter(columns.values())))
    about = PngImagePlugin.PngInfo()
    about.add_text("columns", json.dumps(list(columns)))
    about.add_text("rows", str(rows))
    data = io.BytesIO()
    Image.fromarray(grid).save(data, "png", pnginfo=about)
    if folder.exists():
        remove_unfinished(folder)
    write_bytes(_path(folder, step), data.getvalue())


def read(folder: pathlib.Path, step: int) -> Pictures | None:
    """The pictures of one step; None where there are none, or the file is damaged."""
    from PIL import Image

    try:
        with Image.open(_path(folder, step)) as image:
            names, rows = json.loads(image.info["columns"]), int(image.info["rows"])
            return Pictures(tuple(names), np.asarray(image.convert("RGB")), rows)
    except (OSError, KeyError, ValueError, SyntaxError):
        return None


def steps(folder: pathlib.Path) -> list[int]:
    """The steps that have pictures, in order."""
    return sorted(int(path.stem) for path in folder.glob("*.png") if path.stem.isdecimal())


def _path(folder: pathlib.Path, step: int) -> pathlib.Path:
    return folder / f"{step:07d}.png"
