"""Figures of the metrics of `channel_grad`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.names import plain

BASELINE = "L2"
# Curves that lie on top of each other stay visible: the first is wide and pale.
_WIDTHS, _STYLES, _ALPHAS = (1.2, 5.0, 1.6, 1.6, 1.2), ("-", "-", "-", "--", "-"), (1, 0.4, 1, 1, 1)


def metrics(
    kernels: dict[str, np.ndarray],
    lines: dict[str, np.ndarray],
    title: str = "gradient of one row of a ResNet-56 kernel; grey: L2",
) -> Figure:
    """Kernels, and one gradient along the output channels under each metric.

    In the upper row all kernels, and the same enlarged around 1, where re-weighted L2 and Sobolev
    differ; below, one panel for each metric, with the L2 gradient behind.

    Args:
      kernels: by metric, (n,), the circular kernel that a gradient is convolved with.
      lines: by metric, (n,), the gradient; "L2" is the one that is compared with.
      title: of the lower row.
    """
    others = [name for name in lines if name != BASELINE]
    figure = Figure(figsize=(2.4 * max(4, len(others)), 6.2), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1.25, 1))
    whole, enlarged = upper.subplots(1, 2)
    colors = {name: f"C{i}" for i, name in enumerate(kernels)}
    for axis in (whole, enlarged):
        for i, (name, kernel) in enumerate(kernels.items()):
            n = len(kernel)
            axis.plot(
                np.arange(n) - n // 2, n * np.roll(kernel, n // 2), label=plain(name),
                color=colors[name], lw=_WIDTHS[i % 5], ls=_STYLES[i % 5], alpha=_ALPHAS[i % 5],
            )  # fmt: skip
        axis.set_xlabel("distance between output channels")
    whole.set_ylim(-0.2, 3)
    whole.set_ylabel("weight, times n")
    whole.set_title("kernel of each metric (peaks at 0 are cut)", fontsize=10)
    whole.legend(fontsize=7)
    enlarged.set_ylim(0.9, 1.15)
    enlarged.set_title("the same around 1", fontsize=10)
    panels = lower.subplots(1, len(others), sharey=True, squeeze=False)[0]
    scale = np.abs(lines[BASELINE]).max()
    for axis, name in zip(panels, others, strict=True):
        axis.plot(lines[BASELINE] / scale, color="0.65", lw=0.8, label=BASELINE)
        axis.plot(lines[name] / scale, color=colors.get(name, "k"), lw=1.3, label=plain(name))
        axis.set_title(plain(name), fontsize=9)
        axis.set_xlabel("output channel", fontsize=8)
    panels[0].set_ylabel("gradient (relative)")
    lower.suptitle(plain(title), fontsize=10)
    for axis in (whole, enlarged, *panels):
        axis.grid(alpha=0.3)
    return figure
