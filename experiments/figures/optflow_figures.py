"""Figures 1 to 5 of "3D ConvNets with Optical Flow Based Regularization", from their numbers.

And one more, on the scale of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter


def flow_frames(clip: np.ndarray, dx: np.ndarray, dy: np.ndarray) -> Figure:
    """Frames with their flow as arrows: one pixel a frame is an arrow of one pixel.

    Args:
      clip: (T, H, W).
      dx, dy: the same shape, displacement in pixels per frame to the right and downwards.
    """
    frames = len(clip)
    figure = Figure(figsize=(2.2 * frames, 2.5), layout="constrained")
    axes = figure.subplots(1, frames)
    for t, axis in enumerate(axes):
        axis.imshow(clip[t], cmap="gray", vmin=clip.min(), vmax=clip.max())
        axis.quiver(dx[t], dy[t], color="C1", angles="xy", scale_units="xy", scale=1, width=0.008)
        axis.set_title(f"t = {t}", fontsize=9)
        axis.set_xlabel("x (pixels)", fontsize=8)
        axis.tick_params(labelsize=7)
    axes[0].set_ylabel("y (pixels)", fontsize=8)
    return figure


def filter_pair(top: np.ndarray, bottom: np.ndarray, costs: np.ndarray) -> Figure:
    """The frames of two colour filters, noise and a moving bar; 127 is added, so zero is grey.

    Args:
      top, bottom: (channel B G R, T, H, W).
      costs: R of each.
    """
    frames = top.shape[1]
    figure = Figure(figsize=(1.25 * frames + 0.4, 3.2), layout="constrained")
    axes = figure.subplots(2, frames)
    greatest = max(np.abs(top).max(), np.abs(bottom).max())
    rows = zip(("noise", "moving bar"), (top, bottom), costs, strict=True)
    for row, (name, filter_, cost) in enumerate(rows):
        for t in range(frames):
            frame = 127 + 128 * filter_[::-1, t].transpose(1, 2, 0) / greatest
            axes[row, t].imshow(np.clip(frame, 0, 255).astype(np.uint8))
            axes[row, t].set_xticks([])
            axes[row, t].set_yticks([])
            if row == 0:
                axes[row, t].set_title(f"t = {t}", fontsize=9)
        axes[row, 0].set_ylabel(f"{name}\nR = {cost:.3f}", fontsize=9)
    return figure


def norm_and_cost(points: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Cost against norm, by distribution: {"norm", "cost"}."""
    figure = Figure(figsize=(5, 3.8), layout="constrained")
    axis = figure.subplots()
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
    """Cost against norm after a step, both relative to before: a class of points for each step.

    Args:
      steps: (S,).
      costs: (S, filters).
      norms: (S, filters).
    """
    figure = Figure(figsize=(5.6, 4.2), layout="constrained")
    axis = figure.subplots()
    axis.plot(1, 1, "k*", ms=9, ls="none", label="before", zorder=4)
    for i, (step, cost, norm) in enumerate(zip(steps, costs, norms, strict=True)):
        color, marker = f"C{i}", "osD^v"[i % 5]
        axis.plot(norm, cost, marker, ms=3, mew=0, alpha=0.4, color=color)
        axis.plot(
            np.median(norm), np.median(cost), marker, ms=9, mfc="none", mec=color, mew=2, ls="none",
            label=f"step {step:g}", zorder=3,
        )  # fmt: skip
    axis.set_xlabel(r"$L_2$ norm, relative")
    axis.set_ylabel("OptFlow cost R(W), relative")
    axis.grid(alpha=0.3)
    axis.legend(title="large: median", fontsize=8)
    return figure


def time_and_size(
    pixels: list[int], seconds: list[float], scipy_seconds: list[float], scipy_name: str = "SciPy"
) -> Figure:
    """Time of cost and gradient of one filter against its size, and how fast it grows.

    The right panel has the exponent p of time = n^p between each size and the next.

    Args:
      pixels: of each size.
      seconds: of one filter of each size.
      scipy_seconds: the same of a peer, for the first sizes.
      scipy_name: the peer's.
    """
    figure = Figure(figsize=(8.6, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, times, color, marker in (
        ("optflow_jax, in a batch", seconds, "C0", "o"),
        (f"{scipy_name}, as in the paper", scipy_seconds, "C1", "s"),
    ):
        n = np.array(pixels[: len(times)], float)
        left.loglog(n, 1e3 * np.array(times), f"{marker}-", color=color, lw=1, label=name)
        middles = np.sqrt(n[1:] * n[:-1])
        right.semilogx(middles, exponents(n, times), f"{marker}-", color=color, lw=1, label=name)
    left.set_ylabel("milliseconds for one filter")
    right.set_ylabel("exponent p of time = pixels^p between two sizes")
    right.axhline(1.0, color="0.5", ls="--", lw=1, label="p = 1: proportional")
    for axis in (left, right):
        axis.set_xlabel("pixels of a filter, T x H x W")
        axis.grid(alpha=0.3, which="both")
        axis.legend(fontsize=8)
    return figure


def exponents(pixels: Sequence[float], seconds: Sequence[float]) -> np.ndarray:
    """The exponent p of time = pixels^p between each size and the next.

    Example:
      >>> exponents([10, 100, 1000], [1.0, 10.0, 1000.0]).round(6).tolist()
      [1.0, 2.0]
    """
    return np.diff(np.log(seconds)) / np.diff(np.log(np.asarray(pixels, float)))


def share_explained(ratios: np.ndarray, shares: dict[str, list[float]]) -> Figure:
    """The share of the change in time that the flow explains, by kind of filter.

    Args:
      ratios: (N,), mean square of the weights over alpha.
      shares: (N,) of each kind, in [0, 1].
    """
    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axis = figure.subplots()
    for name, share in shares.items():
        axis.semilogx(ratios, 100 * np.array(share), label=name)
    axis.axvline(0.05**2, color="0.5", ls="--", lw=1, label=r"weights of 0.05, $\alpha$ = 1")
    axis.set_xlabel(r"mean square of the weights / $\alpha$")
    axis.set_ylabel("change in time explained by the flow (%)")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure
