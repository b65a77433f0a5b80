"""Figures 1 to 5 of "3D ConvNets with Optical Flow Based Regularization", from code.

    python -m experiments.analysis.optflow_figures --out=DIR

Writes figure1 to figure5 and figure_scale, each as .png and .pdf, and figures.json, which holds
every number that is drawn and a caption for each figure. Figure 5 measures time, so nothing else
should run on the machine. figure_scale is not in the paper: it shows how much of a filter's change
in time the flow explains, for choosing alpha.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib.figure import Figure

import optflow_jax
from experiments.benchmarks.optflow_peers import scipy_as_the_paper
from experiments.cli import lists
from experiments.cli import main as command
from experiments.figures import optflow_figures as figures
from experiments.figures.files import save
from experiments.system import environment
from experiments.system.files import write_json

LUMINANCE = np.array([0.1140, 0.5870, 0.2989])  # of blue, green, red
SIZES = (3, 4, 5, 7, 9, 12, 16, 24, 32)
BATCH, TURNS = 16, 7
STEPPED, SCALED = 400, 100  # random filters of figure 4 and of figure_scale
LARGE_PIXELS = 4096  # the growth from here on is told apart
SCIPY_SECONDS = 3.0  # SciPy stops at the first size that takes longer for one filter.


Drawn = tuple[dict[str, Any], Figure]  # the numbers with a caption, and the figure


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "figures"}
    flags.DEFINE_list("figures", list(MAKERS), f"Accepted: {', '.join(MAKERS)}.", **where)
    flags.DEFINE_string("out", "figures/optflow", "Folder for the figures.", **where)


def main(values: flags.FlagValues) -> None:
    """Draws the figures that the flags ask for."""
    chosen = lists.names("figures", values.figures, MAKERS)
    out = command.out_folder(values)
    results: dict[str, Any] = {"environment": environment.describe()}
    for name in chosen:
        numbers, figure = MAKERS[name]()
        title = f"figure{name}" if name.isdigit() else f"figure_{name}"
        save(figure, out / f"{title}.png")
        results[title] = plain(numbers)
        print(f"figure {name}: {numbers['caption']}", flush=True)
    write_json(out / "figures.json", results)
    print(f"in {out}:\n  " + "  ".join(sorted(p.name for p in out.iterdir())))


def blob(frames: int = 5, size: int = 15, noise: float = 0.1, seed: int = 0) -> np.ndarray:
    """A Gaussian blob that moves one pixel right and half a pixel down a frame, (T, H, W).

    Args:
      frames: T.
      size: H and W.
      noise: standard deviation of the noise, as a part of the blob's height.
      seed: of the noise.
    """
    y, x = np.mgrid[:size, :size]
    clip = [
        np.exp(-((x - 5 - t) ** 2 + (y - 6 - 0.5 * t) ** 2) / (2 * 2.0**2)) for t in range(frames)
    ]
    return np.array(clip) + noise * np.random.default_rng(seed).normal(size=(frames, size, size))


def figure1() -> Drawn:
    """A moving blob and its flow."""
    clip = 10 * blob()
    flow = optflow_jax.flow(jnp.asarray(clip))
    dx, dy = map(np.asarray, flow.displacement)
    bright = clip[:-1] > 5.0
    numbers = {
        "caption": "Optical flow of a blob that moves by (1, 0.5) pixels a frame, with noise of "
        "10 % of its height. Where the blob is bright the displacement found is, on average, "
        f"({dx[:-1][bright].mean():.2f}, {dy[:-1][bright].mean():.2f}) pixels a frame.",
        "cost": float(flow.cost),
        "mean_displacement": [float(dx[:-1][bright].mean()), float(dy[:-1][bright].mean())],
        "clip": clip, "dx": dx, "dy": dy,
    }  # fmt: skip
    return numbers, figures.flow_frames(clip, dx, dy)


def two_filters() -> tuple[np.ndarray, np.ndarray]:
    """The filters of figure 2, (channel B G R, T, H, W): noise, and a noisy bar that moves."""
    rng = np.random.RandomState(1234)
    top = 1.83 * rng.randn(1, 3, 7, 7, 7)
    bottom = np.zeros((1, 3, 7, 7, 7))
    for t in range(7):
        bottom[:, :, t, 2:5, t : t + 2] = 5
    bottom += 0.5 * rng.randn(1, 3, 7, 7, 7)
    return top[0], bottom[0]


def figure2() -> Drawn:
    """Two filters of equal norm, and their costs."""
    top, bottom = two_filters()
    collapsed = np.tensordot(LUMINANCE, np.stack([top, bottom], axis=1), axes=1)
    costs = np.asarray(optflow_jax.cost(jnp.asarray(collapsed)))
    norms = [float(np.linalg.norm(w)) for w in (top, bottom)]
    numbers = {
        "caption": f"Two filters of about equal norm, {norms[0]:.1f} and {norms[1]:.1f}: the cost "
        f"of noise is {costs[0]:.3f}, that of a moving bar {costs[1]:.3f} (the paper: 235 and 80).",
        "costs": costs, "norms": norms, "top": top, "bottom": bottom,
    }  # fmt: skip
    return numbers, figures.filter_pair(top, bottom, costs)


def figure3() -> Drawn:
    """Cost against norm for random filters."""
    rng = np.random.default_rng(0)
    shape = (200, 7, 7, 7)
    drawn = {
        "normal": rng.normal(size=shape),
        "uniform": rng.uniform(-np.sqrt(3), np.sqrt(3), shape),
        "Laplace": rng.laplace(scale=np.sqrt(0.5), size=shape),
    }
    scales = rng.uniform(0.2, 2.5, (200, 1, 1, 1))
    points = {}
    for name, filters in drawn.items():
        cost = np.asarray(optflow_jax.cost(jnp.asarray(scales * filters)))
        points[name] = {"norm": np.linalg.norm((scales * filters).reshape(200, -1), axis=1)}
        points[name]["cost"] = cost
    everything = [np.concatenate([p[k] for p in points.values()]) for k in ("norm", "cost")]
    correlation = float(np.corrcoef(*map(np.log, everything))[0, 1])
    numbers = {
        "caption": "Cost against norm for 600 random 7x7x7 filters of three distributions; the "
        f"logarithms correlate with r = {correlation:.3f}.",
        "correlation_of_logarithms": correlation,
        "points": points,
    }
    return numbers, figures.norm_and_cost(points)


def figure4() -> Drawn:
    """Cost and norm after one step along the gradient."""
    filters = jnp.asarray(np.random.default_rng(1).normal(size=(STEPPED, 7, 7, 7)))
    cost, gradient = jax.vmap(jax.value_and_grad(optflow_jax.cost))(filters)
    steps = np.array([0.01, 0.03, 0.1, 0.3, 0.5])
    moved = [filters - step * gradient for step in steps]

    def norm(w):
        return jnp.linalg.norm(w.reshape(STEPPED, -1), axis=1)

    costs = np.array([optflow_jax.cost(w) / cost for w in moved])
    norms = np.array([norm(w) / norm(filters) for w in moved])
    middle = int(np.flatnonzero(steps == 0.1)[0])
    numbers = {
        "caption": f"{STEPPED} random 7x7x7 filters after one step along the negative gradient of "
        "the cost. At a step of 0.1 the cost falls by "
        f"{100 * (1 - np.median(costs[middle])):.1f} % and the norm by "
        f"{100 * (1 - np.median(norms[middle])):.1f} % (medians).",
        "steps": steps, "relative_cost": costs, "relative_norm": norms,
    }  # fmt: skip
    return numbers, figures.after_a_step(steps, costs, norms)


def seconds_of(call: Callable[[], Any], turns: int) -> float:
    """Median seconds of a call, after one that does not count."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(turns):
        start = time.perf_counter()
        jax.block_until_ready(call())
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def figure5() -> Drawn:
    """Time against the size of a filter."""
    rng = np.random.default_rng(2)
    solve = jax.jit(jax.value_and_grad(lambda w: jnp.sum(optflow_jax.cost(w))))
    pixels, ours, theirs, too_slow = [], [], [], False
    for size in SIZES:
        filters = jnp.asarray(rng.normal(size=(BATCH, size, size, size)), jnp.float32)
        pixels.append(size**3)
        ours.append(seconds_of(lambda filters=filters: solve(filters), TURNS) / BATCH)
        if not too_slow:
            one = np.asarray(filters[:1])
            theirs.append(seconds_of(lambda one=one: scipy_as_the_paper(one), 3))
            too_slow = theirs[-1] > SCIPY_SECONDS

    largest = [i for i, n in enumerate(pixels) if n >= LARGE_PIXELS]
    growth = figures.exponents(pixels, ours)
    scipy_growth = figures.exponents(pixels[: len(theirs)], theirs)
    caption = (
        f"Time for cost and gradient of one filter, in a batch of {BATCH}, against its number of "
        f"pixels, from {pixels[0]:,} to {pixels[-1]:,}, weights of scale 1. No one power law fits: "
        f"between neighbouring sizes the exponent goes from {growth.min():.2f} to "
        f"{growth.max():.2f}; that of SciPy, as in the paper, from {scipy_growth.min():.2f} to "
        f"{scipy_growth.max():.2f} (up to {pixels[len(theirs) - 1]:,} pixels)."
    )
    if len(largest) > 1:
        both = [largest[0], largest[-1]]
        over = figures.exponents([pixels[i] for i in both], [ours[i] for i in both])[0]
        caption += (
            f" From {pixels[both[0]]:,} to {pixels[both[1]]:,} pixels it is {over:.2f} (ours)."
        )
    numbers = {
        "caption": caption, "pixels": pixels, "seconds": ours, "local_exponents": growth,
        "scipy_seconds": theirs, "scipy_local_exponents": scipy_growth,
    }  # fmt: skip
    return numbers, figures.time_and_size(pixels, ours, theirs)


def explained(filters: jax.Array, alpha: float) -> np.ndarray:
    """1 - R(W) / L(W, 0, 0): the share of a filter's change in time that its flow explains.

    Args:
      filters: (*batch, T, H, W), not constant in time.
      alpha: smoothness parameter of the cost.
    """
    nothing = jnp.zeros_like(filters)
    still = optflow_jax.loss(filters, nothing, nothing, alpha=alpha)
    return 1 - np.asarray(optflow_jax.cost(filters, alpha=alpha) / still)


def figure_scale() -> Drawn:
    """How much of a change in time the flow explains, against the scale of the weights."""
    noise = np.random.default_rng(3).normal(size=(SCALED, 7, 7, 7))
    bar = np.tensordot(LUMINANCE, two_filters()[1], axes=1)[None]
    kinds = {"noise": noise, "a moving bar (figure 2)": bar}
    ratios = np.logspace(-4, 4, 33)
    # R(s W; alpha) = s^2 R(W; alpha / s^2), so the weights' scale and alpha act as one number.
    shares = {
        name: [
            float(np.median(explained(jnp.asarray(w / np.sqrt(np.mean(w**2))), 1 / ratio)))
            for ratio in ratios
        ]
        for name, w in kinds.items()
    }
    usual, small = (
        100 * float(np.median(explained(jnp.asarray(0.05 * noise), alpha))) for alpha in (1.0, 1e-3)
    )
    numbers = {
        "caption": "The share of a 7x7x7 filter's change in time that its flow explains, against "
        "the mean square of its weights over alpha. For noise with weights of 0.05, as trained "
        f"networks have, it is {usual:.2f} % at alpha = 1, so that R is half the squared "
        f"difference of successive frames and little else; at alpha = 0.001 it is {small:.0f} %.",
        "ratios": ratios, "shares": shares, "at_0.05": {"alpha 1": usual, "alpha 0.001": small},
    }  # fmt: skip
    return numbers, figures.share_explained(ratios, shares)


MAKERS = {
    "1": figure1, "2": figure2, "3": figure3, "4": figure4, "5": figure5, "scale": figure_scale,
}  # fmt: skip


def plain(value: Any) -> Any:
    """Arrays as lists, for JSON."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return np.round(value.astype(float), 6).tolist()
    return value


if __name__ == "__main__":
    command.run(main, define)
