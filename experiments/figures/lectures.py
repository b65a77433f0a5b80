"""Figures of the lectures: templates, the valley of the loss, the cliff, bias and variance."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.names import plain
from experiments.lectures.bias_variance import Decomposition
from experiments.lectures.cliff import LABELS, POINTS, Classifier
from experiments.lectures.valley import Valley


def templates(kernel: np.ndarray, size: int, names: tuple[str, ...], title: str) -> Figure:
    """The weights of each class as an image; grey is zero in all of them.

    Args:
      kernel: W, (size size channels, classes).
      size: height and width of the images.
      names: of the classes.
      title: above the images.
    """
    images = kernel.T.reshape(len(names), size, size, -1)
    largest = np.abs(images).max() or 1.0
    columns = min(5, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(1.6 * columns, 1.8 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis in axes:
        axis.set_axis_off()
    for axis, image, name in zip(figure.axes, images, names, strict=False):
        shown = 0.5 + 0.5 * image / largest
        axis.imshow(shown[..., 0] if shown.shape[-1] == 1 else shown, cmap="gray", vmin=0, vmax=1)
        axis.set_title(plain(name), fontsize=9)
    figure.suptitle(plain(title), fontsize=10)
    return figure


def valley(found: Valley) -> Figure:
    """Contours of the loss with the optimizers' paths, and the loss along each path."""
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    plane, curves = figure.subplots(1, 2)
    lowest = min(found.loss.min(), *(losses.min() for losses in found.losses.values()))
    levels = np.geomspace(0.005, found.loss.max() - lowest, 16)
    plane.contour(
        found.first, found.second, found.loss - lowest, levels, colors="0.75", linewidths=0.8
    )
    for number, (name, weights) in enumerate(found.paths.items()):
        color, style = f"C{number % 10}", "-" if number < 10 else "--"
        plane.plot(*weights.T, style, marker=".", ms=3, lw=1, color=color, label=name)
        above = np.maximum(found.losses[name] - lowest, 1e-7)
        curves.plot(above, style, lw=1.2, color=color, label=name)
    plane.plot(*next(iter(found.paths.values()))[0], "ko", ms=6)
    plane.set_xlim(found.first[0], found.first[-1])
    plane.set_ylim(found.second[0], found.second[-1])
    plane.set_xlabel("$w_1$ (of the feature that varies much)")
    plane.set_ylabel("$w_2$ (of the feature that varies little)")
    curves.set_yscale("log")
    curves.set_xlabel("step")
    curves.set_ylabel("loss above the lowest found")
    curves.grid(alpha=0.3)
    curves.legend(fontsize=7, ncols=2)
    return figure


def cliff(classifiers: dict[str, Classifier]) -> Figure:
    """The probability of class 1 along the line, one curve for each classifier."""
    figure = Figure(figsize=(6.0, 3.8), layout="constrained")
    axis = figure.subplots()
    x = np.linspace(-3, 3, 601)
    for name, classifier in classifiers.items():
        numbers = f"data loss {classifier.data_loss:.2g}, $\\sum w^2$ {classifier.penalty:.3g}"
        axis.plot(x, classifier.probability(x), label=f"{name}: {numbers}")
    axis.plot(POINTS, LABELS, "ko", ms=5, label="training points")
    axis.set_xlabel("x")
    axis.set_ylabel("probability of class 1")
    axis.set_ylim(-0.05, 1.35)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="upper left")
    return figure


def bias_variance(fits: dict[float, Decomposition]) -> Figure:
    """Fits at three widths above; below bias^2, variance and error against the width.

    Args:
      fits: by width, at least three.
    """
    widths = sorted(fits)
    shown = [widths[-1], min(widths, key=lambda width: fits[width].error), widths[0]]
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    upper, lower = figure.subfigures(2, 1)
    for axis, width in zip(upper.subplots(1, 3, sharey=True), shown, strict=True):
        found = fits[width]
        axis.plot(found.places, found.fits[:20].T, color="C0", lw=0.5, alpha=0.6)
        axis.plot(found.places, found.truth, color="C3", lw=2)
        axis.set_ylim(found.truth.min() - 2, found.truth.max() + 2)
        axis.set_title(f"width {width:g}", fontsize=10)
    axis = lower.subplots()
    for name in ("bias_squared", "variance", "error"):
        values = [getattr(fits[width], name) for width in widths]
        axis.loglog(widths, values, "o-", ms=4, label=name.replace("_squared", "$^2$"))
    axis.set_xlabel("width of the radial basis functions")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
