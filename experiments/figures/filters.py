"""Figures of spatiotemporal filters and of what they respond to: still (PNG) and moving (GIF)."""

from __future__ import annotations

import pathlib

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.figure import Figure

from experiments.figures.training import save

FRAMES_PER_SECOND = 4


def draw_filters(
    directory: pathlib.Path,
    filters: np.ndarray,
    u: np.ndarray,
    v: np.ndarray,
    cost: np.ndarray,
    title: str,
) -> None:
    """Writes filters.png and filters.gif.

    Args:
      directory: where to.
      filters, u, v: (filters, T, H, W), the horizontal and vertical flow in pixels per frame.
      cost: (filters,).
      title: above the figure.
    """
    save(filter_rows(filters, u, v, cost, title), directory / "filters.png")
    figure, axes = _grid(len(filters), _with_scale(title, _longest(u, v)))
    pictures, arrows = [], []
    for axis, w, cost_of_one in zip(axes, filters, cost, strict=False):
        pictures.append(_show(axis, w[0], np.abs(w).max()))
        arrows.append(_arrows(axis, u[len(arrows), 0], v[len(arrows), 0], _longest(u, v)))
        axis.set_title(f"R = {cost_of_one:.3g}", fontsize=7)

    def frame(t):
        for i, picture in enumerate(pictures):
            picture.set_data(filters[i, t])
            arrows[i].set_UVC(u[i, t], v[i, t])

    _animate(figure, frame, filters.shape[1], directory / "filters.gif")


def filter_rows(
    filters: np.ndarray, u: np.ndarray, v: np.ndarray, cost: np.ndarray, title: str
) -> Figure:
    """One row for each filter, one column for each frame, the flow as arrows."""
    rows, columns = filters.shape[:2]
    figure, axes = plt.subplots(
        rows, columns, figsize=(0.9 * columns + 0.8, 0.9 * rows + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    longest = _longest(u, v)
    for i in range(rows):
        for t in range(columns):
            axis = axes[i, t]
            _show(axis, filters[i, t], np.abs(filters[i]).max())
            _arrows(axis, u[i, t], v[i, t], longest)
            if i == 0:
                axis.set_title(f"t = {t}", fontsize=7)
        axes[i, 0].set_ylabel(f"{i}\nR = {cost[i]:.3g}", fontsize=7, rotation=0, ha="right")
    figure.suptitle(_with_scale(title, longest), fontsize=8)
    return figure


def draw_activations(
    directory: pathlib.Path, clip: int, frames: np.ndarray, response: np.ndarray, title: str
) -> None:
    """Writes activations_CLIP.png (a few frames) and activations_CLIP.gif (all of them).

    Args:
      directory: where to.
      clip: its number, for the name.
      frames: uint8 (T, H, W, C), the clip.
      response: (T, H, W, filters), not negative.
      title: above the figure.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
    count, greatest = response.shape[-1], max(float(response.max()), 1e-12)
    figure, axes = plt.subplots(
        count + 1, len(shown), figsize=(0.9 * len(shown) + 0.6, 0.9 * count + 1.2), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for column, t in enumerate(shown):
        axes[0, column].imshow(frames[t].squeeze(), cmap="gray")
        axes[0, column].set_title(f"t = {t}", fontsize=7)
        for i in range(count):
            axes[i + 1, column].imshow(response[t, :, :, i], cmap="magma", vmin=0, vmax=greatest)
    for row, label in enumerate(["clip", *map(str, range(count))]):
        axes[row, 0].set_ylabel(label, fontsize=7)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"activations of {title}", fontsize=8)
    save(figure, directory / f"activations_{clip}.png")

    figure, axes = _grid(count + 1, f"activations of {title}")
    pictures = [axes[0].imshow(frames[0].squeeze(), cmap="gray")]
    axes[0].set_title("clip", fontsize=7)
    for i in range(count):
        axes[i + 1].set_title(str(i), fontsize=7)
        pictures.append(
            axes[i + 1].imshow(response[0, :, :, i], cmap="magma", vmin=0, vmax=greatest)
        )

    def frame(t):
        pictures[0].set_data(frames[t].squeeze())
        for i in range(count):
            pictures[i + 1].set_data(response[t, :, :, i])

    _animate(figure, frame, len(frames), directory / f"activations_{clip}.gif")


def _grid(count: int, title: str) -> tuple[Figure, list]:
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(max(3.6, 1.2 * columns), 1.3 * rows + 0.5), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_frame_on(False)
    figure.suptitle(title, fontsize=7)
    return figure, list(axes.flat)


def _show(axis, image: np.ndarray, greatest: float):
    axis.set_xticks([])
    axis.set_yticks([])
    greatest = max(float(greatest), 1e-12)
    return axis.imshow(image, cmap="gray", vmin=-greatest, vmax=greatest)


def _arrows(axis, u: np.ndarray, v: np.ndarray, longest: float):
    # Rows run downwards in an image and so does v: arrows in data units point where pixels move.
    return axis.quiver(
        u, v, color="C1", angles="xy", scale_units="xy", scale=longest, width=0.02, pivot="mid"
    )


def _with_scale(title: str, longest: float) -> str:
    return f"{title}\nlongest arrow: {longest:.2g} pixels per frame"


def _longest(u: np.ndarray, v: np.ndarray) -> float:
    return max(float(np.sqrt(u**2 + v**2).max()), 1e-12)


def _animate(figure: Figure, frame, count: int, path: pathlib.Path) -> None:
    temporary = path.with_name(f".{path.name}")
    figure.canvas.draw()  # The layout, once: done again for every frame it would make them jump.
    figure.set_layout_engine("none")
    try:
        FuncAnimation(figure, frame, frames=count).save(
            temporary, writer=PillowWriter(fps=FRAMES_PER_SECOND), dpi=90
        )
        temporary.replace(path)
    finally:
        plt.close(figure)
        temporary.unlink(missing_ok=True)
