"""Figures of reconstructions: the row of images by number of views, and the gap by iteration."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.names import plain


def reconstructions(
    truth: np.ndarray, rows: dict[str, dict[int, np.ndarray]], scores: dict[str, dict[int, float]]
) -> Figure:
    """A row of images for each method, a column for each number of views, the truth in front.

    Args:
      truth: (n, n), values from 0 to 1.
      rows: by method and number of views, the image (n, n).
      scores: by method and number of views, the PSNR in dB.
    """
    views = list(next(iter(rows.values())))
    shape = len(rows), 1 + len(views)
    figure = Figure(figsize=(1.9 * shape[1], 2.1 * shape[0]), layout="constrained")
    axes = figure.subplots(*shape, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    axes[0, 0].imshow(truth, cmap="gray", vmin=0, vmax=1)
    axes[0, 0].set_title("truth", fontsize=9)
    for row, (method, images) in zip(axes, rows.items(), strict=True):
        for axis, (count, image) in zip(row[1:], images.items(), strict=True):
            axis.imshow(image, cmap="gray", vmin=0, vmax=1)
            axis.set_title(
                f"{plain(method)}\n{count} views, {scores[method][count]:.1f} dB", fontsize=8
            )
    return figure


def gaps(histories: dict[str, dict[str, np.ndarray]]) -> Figure:
    """The relative duality gap against iterations, one line for each problem.

    Args:
      histories: by name of the problem, the "iteration", "objective" and "dual" of `primal_dual`.
    """
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axis = figure.subplots()
    for name, history in histories.items():
        axis.plot(
            history["iteration"], 1 - history["dual"] / history["objective"], label=plain(name)
        )
    axis.set_yscale("log")
    axis.set_xlabel("iteration")
    axis.set_ylabel("duality gap / objective")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
