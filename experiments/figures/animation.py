"""Writing a moving figure: a GIF, whole or not at all."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

_MILLISECONDS, _DPI = 250, 90


def save(figure: Figure, draw: Callable[[int], None], count: int, path: pathlib.Path) -> None:
    """Writes `count` frames as a GIF that repeats for ever.

    Args:
      figure: with everything that does not move.
      draw: changes the figure to what frame t shows.
      count: number of frames.
      path: of the GIF.

    Raises:
      OSError: the file cannot be written; what was there is left as it was.
    """
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # Makes the layout once: made again for every frame it would jump.
    figure.set_layout_engine("none")
    frames = []
    for t in range(count):
        draw(t)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba()).copy()).convert("RGB"))
    temporary = path.with_name(f".{path.name}")
    try:
        frames[0].save(
            temporary, format="GIF", save_all=True, append_images=frames[1:],
            duration=_MILLISECONDS, loop=0,
        )  # fmt: skip
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
