"""Figures of the metrics of `channel_grad`."""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure


def metrics(kernels: dict[str, np.ndarray], lines: dict[str, np.ndarray]) -> Figure:
    """Kernels, and one gradient along the output channels under each metric.

    Args:
      kernels: by metric, (n,), the circular kernel of the map.
      lines: by metric, (n,), the gradient.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3), layout="constrained")
    for name, kernel in kernels.items():
        n = len(kernel)
        distance = np.arange(n) - n // 2
        left.plot(distance, n * np.roll(kernel, n // 2), label=name, lw=1.4)
    left.set_ylim(-0.2, 3)
    left.set_xlabel("distance between output channels")
    left.set_ylabel("weight, times n")
    left.set_title("kernel of each metric (peaks at 0 are cut)", fontsize=10)
    left.legend(fontsize=7)
    for name, line in lines.items():
        scaled = line / np.abs(lines["L2"]).max()
        right.plot(scaled, label=name, lw=0.8 if name == "L2" else 1.4)
    right.set_xlabel("output channel")
    right.set_ylabel("gradient (relative)")
    right.set_title("gradient of one weight's row of a ResNet-56 kernel", fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.3)
    return figure
