"""Figures 1 to 5 of "3D ConvNets with Optical Flow Based Regularization", from their numbers.

And one more, on the scale of the weights.
"""

from __future__ import annotations

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter


def flow_frames(clip: np.ndarray, u: np.ndarray, v: np.ndarray) -> Figure:
    """Frames with their flow.

    Args:
      clip: (T, H, W).
      u, v: the same shape, pixels per frame to the right and downwards.
    """
    frames = len(clip)
    figure, axes = plt.subplots(1, frames, figsize=(2.2 * frames, 2.5), layout="constrained")
    for t, axis in enumerate(axes):
        axis.imshow(clip[t], cmap="gray", vmin=clip.min(), vmax=clip.max())
        axis.quiver(u[t], v[t], color="C1", angles="xy", scale_units="xy", scale=0.6, width=0.008)
        axis.set_title(f"t = {t}", fontsize=9)
        axis.set_xlabel("x (pixels)", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("y (pixels)", fontsize=8)
    return figure


def filter_pair(top: np.ndarray, bottom: np.ndarray, costs: np.ndarray) -> Figure:
    """The frames of two colour filters, shifted by 127 so that zero is grey.

    Args:
      top, bottom: (channel B G R, T, H, W).
      costs: R of each.
    """
    frames = top.shape[1]
    figure, axes = plt.subplots(2, frames, figsize=(1.25 * frames, 3.2), layout="constrained")
    greatest = max(np.abs(top).max(), np.abs(bottom).max())
    for row, (filter_, cost) in enumerate(zip((top, bottom), costs, strict=True)):
        for t in range(frames):
            frame = 127 + 128 * filter_[::-1, t].transpose(1, 2, 0) / greatest
            axes[row, t].imshow(np.clip(frame, 0, 255).astype(np.uint8))
            axes[row, t].set_xticks([])
            axes[row, t].set_yticks([])
            if row == 0:
                axes[row, t].set_title(f"t = {t}", fontsize=9)
        axes[row, 0].set_ylabel(f"R = {cost:.3f}", fontsize=9)
    return figure


def norm_and_cost(points: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Cost against norm, by distribution: {"norm", "cost"}."""
    figure, axis = plt.subplots(figsize=(5, 3.8), layout="constrained")
    for (name, point), marker in zip(points.items(), "o^s", strict=False):
        axis.loglog(point["norm"], point["cost"], marker, ms=3.5, alpha=0.6, label=name)
    axis.set_xlabel(r"$L_2$ norm of the filter")
    axis.set_ylabel("OptFlow cost R(W)")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xticks([5, 10, 20, 50], ["5", "10", "20", "50"])
    axis.grid(alpha=0.3, which="both")
    axis.legend(title="elements drawn from")
    return figure


def after_a_step(steps: np.ndarray, costs: np.ndarray, norms: np.ndarray) -> Figure:
    """Cost against norm after a step, both relative to before.

    Args:
      steps: (S,).
      costs, norms: (S, filters).
    """
    figure, axis = plt.subplots(figsize=(5, 3.8), layout="constrained")
    axis.plot(1, 1, "k*", ms=5, label="before")
    for step, cost, norm in zip(steps, costs, norms, strict=True):
        axis.plot(norm, cost, ".", ms=3, alpha=0.6, label=f"step {step:g}")
    axis.set_xlabel(r"$L_2$ norm, relative")
    axis.set_ylabel("OptFlow cost R(W), relative")
    axis.set_xlim(0, 1.1)
    axis.set_ylim(0, 1.1)
    axis.grid(alpha=0.3)
    axis.legend(markerscale=2.5)
    return figure


def time_and_size(
    pixels: list[int],
    seconds: list[float],
    exponent: float,
    scipy_seconds: list[float],
    scipy_exponent: float,
) -> Figure:
    """Time of cost and gradient of one filter against its size, with the fitted power laws."""
    figure, axis = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name, times, power, color in (
        ("optflow_jax, in a batch", seconds, exponent, "C0"),
        ("SciPy, as in the paper", scipy_seconds, scipy_exponent, "C1"),
    ):
        n = np.array(pixels[: len(times)], float)
        axis.loglog(n, 1e3 * np.array(times), "o", color=color, label=name)
        level = np.exp(np.mean(np.log(times) - power * np.log(n)))
        axis.loglog(
            n, 1e3 * level * n**power, "--", color=color, lw=1, label=f"fit, $n^{{{power:.2f}}}$"
        )
    axis.set_xlabel("pixels of a filter, T x H x W")
    axis.set_ylabel("milliseconds for one filter")
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize=8)
    return figure


def share_explained(ratios: np.ndarray, shares: dict[str, list[float]]) -> Figure:
    """The share of the change in time that the flow explains, by kind of filter.

    Args:
      ratios: (N,), mean square of the weights over alpha.
      shares: (N,) of each kind, in [0, 1].
    """
    figure, axis = plt.subplots(figsize=(5.2, 3.8), layout="constrained")
    for name, share in shares.items():
        axis.semilogx(ratios, 100 * np.array(share), label=name)
    axis.axvline(0.05**2, color="0.5", ls="--", lw=1, label=r"weights of 0.05, $\alpha$ = 1")
    axis.set_xlabel(r"mean square of the weights / $\alpha$")
    axis.set_ylabel("change in time explained by the flow (%)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
