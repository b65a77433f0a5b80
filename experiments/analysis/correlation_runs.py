"""Correlation of trained kernels over the trials of a study (the channel paper's figure 11)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from channel_grad import correlation
from experiments.system.errors import ConfigError
from experiments.training.checkpoints import read_latest
from experiments.training.statistics import half_interval

# Within (height, width, in, out).
AXES = {"output": {"axis": -1, "other": -2}, "input": {"axis": -2, "other": -1}}


def trials(workdir: pathlib.Path) -> dict[str, dict[int, pathlib.Path]]:
    """The folders of checkpoints of a study, {run: {seed: folder}}.

    Raises:
      ConfigError: there is none.
    """
    found: dict[str, dict[int, pathlib.Path]] = {}
    for folder in sorted((workdir / "checkpoints").glob("*/seed_*")):
        seed = folder.name.removeprefix("seed_")
        if seed.isdecimal() and folder.is_dir():
            found.setdefault(folder.parent.name, {})[int(seed)] = folder
    if not found:
        raise ConfigError("workdir", workdir, "a folder that a training command wrote")
    return {run: dict(sorted(seeds.items())) for run, seeds in found.items()}


def read_kernels(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The convolution kernels of the newest checkpoint of one trial, {layer: (*window, in, out)}.

    Raises:
      ConfigError: there is no checkpoint that can be read.
    """
    try:
        state = read_latest(folder)["state"]
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError("workdir", folder, f"a trial with a checkpoint; {error}") from error
    # The state is one network, or holds several by name.
    return {
        path.replace("params/", "", 1): np.asarray(leaf)
        for path, leaf in _leaves(state)
        if "params/" in path and path.endswith("kernel") and np.ndim(leaf) >= 3
    }


def usable(
    arrays: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The kernels that can be analysed, and why the others cannot, {name: reason}.

    Args:
      arrays: each (*window, in, out); those of less than three axes are no kernels.
    """
    kernels = {name: array for name, array in arrays.items() if array.ndim >= 3}
    reasons = {name: reason for name, array in kernels.items() if (reason := _unusable(array))}
    return {name: kernels[name] for name in kernels if name not in reasons}, reasons


def _unusable(kernel: np.ndarray) -> str | None:
    dtype = kernel.dtype
    # Types of ml_dtypes are not among NumPy's own floating types; float8_e8m0fnu is for scales.
    if dtype.kind != "f" and not dtype.name.startswith(("bfloat16", "float8_e4", "float8_e5")):
        return f"dtype {dtype}, no floating-point weights"
    if not kernel.size:
        return f"shape {kernel.shape}, no weights"
    if max(kernel.shape[-2:]) < 2:
        return "a single channel"
    return None if np.isfinite(kernel).all() else "NaN or infinity"


def mean_over_layers(
    kernels: Iterable[np.ndarray], direction: str, max_distance: int
) -> np.ndarray:
    """Correlation at |i - j| = 1, 2, ..., averaged over the layers that have channels so far apart.

    Args:
      kernels: each (*window, in, out).
      direction: "output" or "input".
      max_distance: D, the largest |i - j|.

    Returns:
      (D,); NaN where no layer has two living channels so far apart.
    """
    axes = AXES[direction]
    lines = [np.full(max_distance, np.nan)]
    for kernel in kernels:
        distances = min(max_distance, kernel.shape[axes["axis"]] - 1)
        if distances:
            found = correlation.by_distance(correlation.matrix(kernel, **axes), distances)
            lines.append(np.pad(found, (0, max_distance - distances), constant_values=np.nan))
    return _mean(np.stack(lines))


def compare(lines: dict[str, dict[int, dict[str, np.ndarray]]]) -> dict[str, dict[str, Any]]:
    """Mean over the trials of each run, with Student's 95 % interval.

    Args:
      lines: {run: {seed: {direction: what `mean_over_layers` returns}}}.

    Returns:
      {run: {"seeds": [...], direction: {"mean": [at |i - j| = 1, 2, ...], "half_interval": [...],
      "trials": [[...], ...]}}}; the half interval is NaN for a single trial.
    """
    result: dict[str, dict[str, Any]] = {}
    for run, seeds in lines.items():
        result[run] = {"seeds": list(seeds)}
        for direction in AXES:
            each = np.stack([line[direction] for line in seeds.values()])
            halves = [half_interval(c) if len(c) > 1 else np.nan for c in each.T]
            result[run][direction] = {
                "mean": _mean(each).tolist(),
                "half_interval": halves,
                "trials": each.tolist(),
            }
    return result


def _mean(lines: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(lines)
    counts = known.sum(axis=0)
    sums = np.where(known, lines, 0).sum(axis=0)
    return np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in _leaves(tree[key], (*path, str(key)))]
    return [("/".join(path), tree)]
