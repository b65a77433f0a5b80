"""Figures of spatiotemporal filters and of their activations: still (PNG, PDF) and moving (GIF)."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.quiver import Quiver

from experiments.figures import animation
from experiments.figures.files import save
from experiments.figures.names import plain

_TINY = 1e-12  # in place of a greatest value of zero
_ACTIVATION = "activation (after ReLU)"


def draw_filters(
    directory: pathlib.Path,
    filters: np.ndarray,
    dx: np.ndarray,
    dy: np.ndarray,
    cost: np.ndarray,
    title: str,
) -> None:
    """Writes filters.png, filters.pdf and filters.gif.

    Args:
      directory: where to.
      filters: (filters, T, H, W).
      dx: the same shape, displacement to the right in pixels per frame.
      dy: the same shape, displacement downwards.
      cost: (filters,), the OptFlow cost R.
      title: above the figure.
    """
    save(filter_rows(filters, dx, dy, cost, title), directory / "filters.png")
    longest = _longest(dx, dy)
    figure, axes = _grid(len(filters), _with_scale(title, longest))
    pictures, arrows = [], []
    for i, w in enumerate(filters):
        pictures.append(_show(axes[i], w[0], np.abs(w).max()))
        arrows.append(_arrows(axes[i], dx[i, 0], dy[i, 0], longest))
        axes[i].set_title(f"{i}: R = {cost[i]:.3g}", fontsize=7)

    def frame(t: int) -> None:
        for i, picture in enumerate(pictures):
            picture.set_data(filters[i, t])
            arrows[i].set_UVC(dx[i, t], dy[i, t])

    animation.save(figure, frame, filters.shape[1], directory / "filters.gif")


def filter_rows(
    filters: np.ndarray, dx: np.ndarray, dy: np.ndarray, cost: np.ndarray, title: str
) -> Figure:
    """One row for each filter, one column for each frame, the flow as arrows.

    Args: see `draw_filters`.
    """
    rows, columns = filters.shape[:2]
    figure = Figure(figsize=(0.9 * columns + 1.4, 0.9 * rows + 0.7), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    longest = _longest(dx, dy)
    for i in range(rows):
        greatest = np.abs(filters[i]).max()
        for t in range(columns):
            axis = axes[i, t]
            _show(axis, filters[i, t], greatest)
            _arrows(axis, dx[i, t], dy[i, t], longest)
            if i == 0:
                axis.set_title(f"t = {t}", fontsize=7)
        label = f"filter {i}\nR = {cost[i]:.3g}\nmax |w| = {greatest:.2g}"
        axes[i, 0].set_ylabel(label, fontsize=6.5, rotation=0, ha="right", va="center")
    figure.suptitle(plain(_with_scale(title, longest)), fontsize=8)
    return figure


def draw_activations(
    directory: pathlib.Path, clip: int, frames: np.ndarray, response: np.ndarray, title: str
) -> None:
    """Writes activations_CLIP.png and .pdf (a few frames) and activations_CLIP.gif (all of them).

    Args:
      directory: where to.
      clip: its number, for the name.
      frames: uint8 (T, H, W, C), the clip.
      response: (T, H, W, filters), not negative.
      title: above the figure.
    """
    figure = activation_rows(frames, response, f"activations of {title}")
    save(figure, directory / f"activations_{clip}.png")

    count, greatest = response.shape[-1], _greatest(response)
    figure, axes = _grid(count + 1, f"activations of {title}")
    pictures = [axes[0].imshow(frames[0].squeeze(), cmap="gray")]
    axes[0].set_title("clip", fontsize=7)
    for i in range(count):
        axes[i + 1].set_title(f"filter {i}", fontsize=7)
        pictures.append(_heat(axes[i + 1], response[0, :, :, i], greatest))
    _colorbar(figure, pictures[-1], axes)

    def frame(t: int) -> None:
        pictures[0].set_data(frames[t].squeeze())
        for i in range(count):
            pictures[i + 1].set_data(response[t, :, :, i])

    animation.save(figure, frame, len(frames), directory / f"activations_{clip}.gif")


def activation_rows(frames: np.ndarray, response: np.ndarray, title: str) -> Figure:
    """The clip in the first row, a row for each filter, and up to six frames as columns.

    Args: see `draw_activations`.
    """
    shown = np.unique(np.linspace(0, len(frames) - 1, 6).round().astype(int))
    count, greatest = response.shape[-1], _greatest(response)
    figure = Figure(figsize=(0.9 * len(shown) + 1.5, 0.9 * count + 1.2), layout="constrained")
    axes = figure.subplots(count + 1, len(shown), squeeze=False)
    for column, t in enumerate(shown):
        axes[0, column].imshow(frames[t].squeeze(), cmap="gray")
        axes[0, column].set_title(f"t = {t}", fontsize=7)
        for i in range(count):
            picture = _heat(axes[i + 1, column], response[t, :, :, i], greatest)
    for row, label in enumerate(["clip", *(f"filter {i}" for i in range(count))]):
        axes[row, 0].set_ylabel(label, fontsize=7)
    for axis in axes.flat:
        _without_ticks(axis)
    _colorbar(figure, picture, list(axes.flat))
    figure.suptitle(plain(title), fontsize=8)
    return figure


def _grid(count: int, title: str) -> tuple[Figure, list[Axes]]:
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    size = (max(3.6, 1.2 * columns + 0.6), 1.3 * rows + 0.5)
    figure = Figure(figsize=size, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes:
        _without_ticks(axis)
        axis.set_frame_on(False)
    figure.suptitle(plain(title), fontsize=7)
    return figure, axes


def _show(axis: Axes, image: np.ndarray, greatest: float) -> AxesImage:
    """A frame of a filter: zero is grey, its greatest weight black or white."""
    _without_ticks(axis)
    greatest = max(float(greatest), _TINY)
    return axis.imshow(image, cmap="gray", vmin=-greatest, vmax=greatest)


def _heat(axis: Axes, image: np.ndarray, greatest: float) -> AxesImage:
    return axis.imshow(image, cmap="magma", vmin=0, vmax=greatest)


def _colorbar(figure: Figure, picture: AxesImage, axes: list[Axes]) -> Any:
    bar = figure.colorbar(picture, ax=axes, shrink=min(1.0, 4.0 / figure.get_figheight()))
    bar.set_label(_ACTIVATION, fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return bar


def _arrows(axis: Axes, dx: np.ndarray, dy: np.ndarray, longest: float) -> Quiver:
    # Rows run downwards in an image and so does dy: arrows in data units point where pixels move.
    return axis.quiver(
        dx, dy, color="C1", angles="xy", scale_units="xy", scale=longest, width=0.02, pivot="mid"
    )


def _without_ticks(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])


def _with_scale(title: str, longest: float) -> str:
    return (
        f"{title}\ngrey: zero; black and white: greatest weight of the filter; "
        f"longest arrow: {longest:.2g} pixels per frame"
    )


def _longest(dx: np.ndarray, dy: np.ndarray) -> float:
    return max(float(np.sqrt(dx**2 + dy**2).max()), _TINY)


def _greatest(response: np.ndarray) -> float:
    return max(float(response.max()), _TINY)
