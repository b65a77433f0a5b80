"""Are the filters of a trained network correlated along its output channels?

    python -m experiments.analysis.correlation --kernels=FILE --out=DIR
    python -m experiments.analysis.correlation --workdir=W --out=DIR

"Channel-Directed Gradients for Optimization of Convolutional Neural Networks", figures 1, 11, 13
and 14: the kernels of any network, from a .npz, .safetensors or .onnx file (extra: onnx) or from a
training run. Takes seconds to a few minutes. Leaves in DIR:

  correlation.json   {layer: {"output": [correlation at |i - j| = 1, 2, ...], "input": [...], ...}}
  correlation.csv    one row for each layer
  summary.json       all layers together, the file that was read, versions
  distance.png       correlation against |i - j| (figure 11)      each figure as .pdf too
  histogram.png      of all pairs of channels of one layer (figure 13)
  kernel.png         that layer's weights (figure 1)
  deviation.png      mean against deviation over output channels (figure 14)

With --workdir and neither --run nor --seed, all trials are compared too:

  runs.json          correlation at |i - j| = 1, 2, ... of each run, mean and interval over trials
  runs.png           the same as a figure (figure 11)
"""

from __future__ import annotations

import csv
import hashlib
import io
import pathlib
from typing import Any

import numpy as np
import scipy.stats
from absl import flags

from channel_grad import correlation
from experiments.analysis import correlation_runs
from experiments.analysis.correlation_runs import AXES
from experiments.cli import main as cli_main
from experiments.figures import correlation as figures
from experiments.figures.files import save
from experiments.system import environment
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json, write_text
from experiments.system.onnx_files import read_convolutions
from experiments.system.progress import progress
from experiments.system.tensor_files import read_tensors
from experiments.training.settings import at_least

LAYOUTS = ("HWIO", "OIHW")
# Flax saves .npz files as a rule, and PyTorch .safetensors; an .onnx file can only be OIHW.
GUESSED = {".npz": "HWIO", ".safetensors": "OIHW", ".onnx": "OIHW"}
GROUPED = "grouped convolution, whose outputs share no inputs"
_MOST_NAMES = 10  # that a line shows of those left out for one reason


def define(values: flags.FlagValues) -> None:
    what: dict[str, Any] = {"flag_values": values, "module_name": "what is read"}
    how: dict[str, Any] = {"flag_values": values, "module_name": "what is computed and written"}
    flags.DEFINE_string("kernels", None, "Weights. Accepted: .npz, .safetensors, .onnx.", **what)
    flags.DEFINE_string("workdir", None, "Workdir of a study, in place of --kernels.", **what)
    flags.DEFINE_string(
        "run", None, "Which run of the workdir. Default: the first; runs.png has all.", **what
    )
    flags.DEFINE_integer("seed", None, "Which trial of that run. Default: the first.", **what)
    flags.DEFINE_string(
        "layout",
        "auto",
        "Axes of the kernels. Accepted: auto (by the file's format), HWIO, OIHW.",
        **what,
    )
    flags.DEFINE_string(
        "out", "figures/correlation", "Folder for figures, tables and numbers.", **how
    )
    flags.DEFINE_string(
        "layer", None, "Layer of histogram.png and kernel.png. Default: the largest.", **how
    )
    flags.DEFINE_integer("max_distance", 64, "Largest |i - j|.", **how)
    flags.DEFINE_integer("samples", 1000, "Draws of each permutation test.", **how)


def read_kernels(
    path: pathlib.Path, layout: str
) -> tuple[dict[str, np.ndarray], str, dict[str, str]]:
    """The convolution kernels of a file.

    Args:
      path: .npz, .safetensors or .onnx; a kernel is any array of three axes or more.
      layout: "auto", "HWIO" or "OIHW"; height and width stand for any number of axes.

    Returns:
      ({layer: (*window, in, out)}, the layout that was taken, {name: reason} of what was left out:
      what cannot be read, and grouped convolutions, which only .onnx tells).

    Raises:
      ConfigError: the layout or the ending of the file is not accepted.
      UserError: the file cannot be read.
    """
    if layout not in ("auto", *LAYOUTS):
        raise ConfigError("layout", layout, f"auto, {', '.join(LAYOUTS)}")
    if path.suffix not in GUESSED:
        raise ConfigError("kernels", path, f"a file that ends with {', '.join(GUESSED)}")
    if path.suffix == ".onnx" and layout == "HWIO":
        raise ConfigError("layout", layout, "auto or OIHW, which is what .onnx files hold")
    taken = GUESSED[path.suffix] if layout == "auto" else layout
    if path.suffix == ".onnx":
        convolutions, left_out = read_convolutions(path)
        left_out |= {name: GROUPED for name, found in convolutions.items() if found.groups > 1}
        arrays = {name: found.kernel for name, found in convolutions.items() if found.groups == 1}
    else:
        arrays = read_tensors(path)
        left_out = arrays.skipped
    kernels = {
        name: np.moveaxis(array, (0, 1), (-1, -2)) if taken == "OIHW" else array
        for name, array in arrays.items()
        if array.ndim >= 3
    }
    return kernels, taken, left_out


def read_workdir(
    workdir: pathlib.Path, run: str | None = None, seed: int | None = None
) -> dict[str, np.ndarray]:
    """The convolution kernels of the newest checkpoint of one trial.

    Args:
      workdir: of a training run.
      run: which of its runs. Default: the first by name.
      seed: which trial. Default: the one of the least seed.

    Returns:
      {layer: (*window, in, out)}.

    Raises:
      ConfigError: there is no such run or trial, or no checkpoint that can be read.
    """
    found = correlation_runs.trials(workdir)
    run = next(iter(found)) if run is None else run
    if run not in found:
        raise ConfigError("run", run, ", ".join(found))
    seed = min(found[run]) if seed is None else seed
    if seed not in found[run]:
        raise ConfigError("seed", seed, ", ".join(map(str, found[run])))
    return correlation_runs.read_kernels(found[run][seed])


def analyse(kernel: np.ndarray, max_distance: int, samples: int) -> dict[str, Any]:
    """What correlation.json holds of one layer.

    Args:
      kernel: (*window, in, out).
      max_distance: largest |i - j|.
      samples: draws of each permutation test.

    Returns:
      "shape"; "output" and "input", the correlation at |i - j| = 1, 2, ..., empty where there is
      one channel; "chance", for each of them the mean over all pairs, its p-value (random signs),
      the 95 % interval of chance at each distance, and the p-value of the order of the channels;
      "constant", the part of both correlations that the mean of all weights explains;
      "deviation_rank_correlation", Spearman's, of |mean| and standard deviation over the outputs.
    """
    result: dict[str, Any] = {"shape": list(kernel.shape), "output": [], "input": [], "chance": {}}
    for direction, axes in AXES.items():
        channels = kernel.shape[axes["axis"]]
        if channels < 2:
            continue
        matrix = correlation.matrix(kernel, **axes)
        options = {"max_distance": min(max_distance, channels - 1), "samples": samples}
        signs = correlation.permutation_test(matrix, "signs", **options)
        order = correlation.permutation_test(matrix, "order", **options)
        result[direction] = signs.by_distance.tolist()
        result["chance"][direction] = {
            "mean": signs.mean,
            "p_value": signs.p_value,
            "low": signs.low.tolist(),
            "high": signs.high.tolist(),
            "order_p_value": order.p_value,
        }
    # Mean squares are one after balancing, so a constant m gives all pairs the correlation m^2.
    result["constant"] = float(np.mean(correlation.balance(kernel))) ** 2
    means, deviations = _lines(kernel)
    distinct = len(set(np.abs(means))) > 1 and len(set(deviations)) > 1
    result["deviation_rank_correlation"] = (
        float(scipy.stats.spearmanr(np.abs(means), deviations).statistic) if distinct else None
    )
    return result


def summarize(layers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All layers together: how often and how much output correlation exceeds input correlation.

    Only layers with both directions count. "significant" is the number of layers whose p-value is
    below 0.05, of which chance would give 5 %; "wilcoxon_p_value" is of the paired difference of
    the means over the layers, one-sided (outputs more correlated).
    """
    layers = {
        name: layer
        for name, layer in layers.items()
        if len(layer["chance"]) == 2
        and all(np.isfinite(chance["mean"]) for chance in layer["chance"].values())
    }
    both = [layer["chance"] for layer in layers.values()]
    summary: dict[str, Any] = {"layers": len(both)}
    for direction in AXES:
        chosen = [chance[direction] for chance in both]
        summary[direction] = {
            "mean": float(np.mean([c["mean"] for c in chosen])) if chosen else None,
            "median": float(np.median([c["mean"] for c in chosen])) if chosen else None,
            "positive": sum(c["mean"] > 0 for c in chosen),
            "significant": sum(c["p_value"] < 0.05 for c in chosen),
            "order_significant": sum(c["order_p_value"] < 0.05 for c in chosen),
        }
    constants = [layer["constant"] for layer in layers.values()]
    summary["constant"] = float(np.mean(constants)) if constants else None
    differences = np.array([c["output"]["mean"] - c["input"]["mean"] for c in both])
    summary["output_above_input"] = int(np.sum(differences > 0))
    summary["wilcoxon_p_value"] = (
        float(scipy.stats.wilcoxon(differences, alternative="greater").pvalue)
        if np.any(differences)
        else None
    )
    return summary


def table(layers: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A header and one row for each layer, as text."""
    rows = [
        [
            "layer", "shape", "output mean", "p", "order p", "input mean", "p", "order p",
            "|mean| ~ deviation",
        ]
    ]  # fmt: skip
    for name, layer in layers.items():
        row = [name, "x".join(map(str, layer["shape"]))]
        for direction in AXES:
            chance = layer["chance"].get(direction)
            keys = (("mean", "+.4f"), ("p_value", ".3f"), ("order_p_value", ".3f"))
            row += [format(chance[k], how) for k, how in keys] if chance else ["", "", ""]
        ranks = layer["deviation_rank_correlation"]
        rows.append([*row, "" if ranks is None else f"{ranks:+.2f}"])
    return rows


def main(values: flags.FlagValues) -> None:
    if (values.kernels is None) == (values.workdir is None):
        raise UserError("--kernels, --workdir: got both or none; accepted: one of the two")
    at_least("max_distance", values.max_distance, 1)
    at_least("samples", values.samples, 1)
    source: dict[str, Any]
    every = {}
    if values.kernels is not None:
        path = pathlib.Path(values.kernels).expanduser()
        kernels, layout, left_out = read_kernels(path, values.layout)
        source = {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "layout": layout,
        }
    else:
        workdir = pathlib.Path(values.workdir).expanduser()
        kernels, left_out = read_workdir(workdir, values.run, values.seed), {}
        if values.run is None and values.seed is None:
            every = correlation_runs.trials(workdir)
        source = {"workdir": workdir.name, "run": values.run, "seed": values.seed}
    kernels, unusable = correlation_runs.usable(kernels)
    source["left_out"] = left_out = left_out | unusable
    name = source.get("file", source.get("workdir", ""))
    if not kernels:
        lines = "".join(f"; {line}" for line in _left_out(left_out))
        raise UserError(f"{name}: has no convolution kernel with two channels or more{lines}")
    shown = values.layer or max(kernels, key=lambda name: kernels[name].size)
    if shown not in kernels:
        reason = f", which was left out: {left_out[shown]}" if shown in left_out else ""
        raise ConfigError("layer", f"{shown}{reason}", ", ".join(kernels))
    if "layout" in source:
        guessed = " (guessed from the format)" if values.layout == "auto" else ""
        print(f"{name}: {len(kernels)} kernels, layout {source['layout']}{guessed}")
    for line in _left_out(left_out):
        print(line)
    out = cli_main.out_folder(values)

    layers = {}
    for layer, kernel in progress(
        kernels.items(), total=len(kernels), label="correlation", unit="layers"
    ):
        layers[layer] = analyse(kernel, values.max_distance, values.samples)
    summary = summarize(layers)
    rows = table(layers)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text(out / "correlation.csv", text.getvalue())
    write_json(out / "correlation.json", layers)
    write_json(
        out / "summary.json",
        {"source": source, "summary": summary, "environment": environment.describe()},
    )
    if every:
        runs = compare_runs(every, values.max_distance)
        write_json(out / "runs.json", runs)
        save(figures.runs_by_distance(runs, source["workdir"]), out / "runs.png")
    draw(out, name, kernels, layers, shown)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print(_sentence(summary))
    print(f"in {out}:\n  " + "  ".join(sorted(p.name for p in out.iterdir())))


def compare_runs(
    folders: dict[str, dict[int, pathlib.Path]], max_distance: int
) -> dict[str, dict[str, Any]]:
    """What runs.json holds; see `correlation_runs.compare`."""
    count = sum(len(seeds) for seeds in folders.values())
    each = [(run, seed, path) for run, seeds in folders.items() for seed, path in seeds.items()]
    lines: dict[str, dict[int, dict[str, np.ndarray]]] = {}
    for run, seed, path in progress(each, total=count, label="correlation", unit="trials"):
        kernels, left_out = correlation_runs.usable(correlation_runs.read_kernels(path))
        for name, reason in left_out.items():
            print(f"left out: {run}, seed {seed}, {name}: {reason}")
        lines.setdefault(run, {})[seed] = {
            direction: correlation_runs.mean_over_layers(kernels.values(), direction, max_distance)
            for direction in AXES
        }
    return correlation_runs.compare(lines)


def draw(
    out: pathlib.Path,
    title: str,
    kernels: dict[str, np.ndarray],
    layers: dict[str, dict[str, Any]],
    shown: str,
) -> None:
    """Writes the four figures."""
    save(figures.by_distance(layers, title), out / "distance.png")
    kernel = kernels[shown]
    densities, means = {}, {}
    for direction, axes in AXES.items():
        matrix = correlation.matrix(kernel, **axes)
        densities[direction], edges = correlation.histogram(matrix, bins=100)
        pairs = matrix[np.triu_indices(len(matrix), 1)]
        known = pairs[~np.isnan(pairs)]
        means[direction] = float(known.mean()) if known.size else 0.0
    label = f"{title}: {shown}, {'x'.join(map(str, kernel.shape))}"
    save(figures.histograms(densities, edges, means, label), out / "histogram.png")
    balanced = np.moveaxis(correlation.balance(kernel), (-1, -2), (0, 1))
    save(figures.kernel_picture(balanced, label), out / "kernel.png")
    statistics = {name: _lines(k) for name, k in kernels.items()}
    save(figures.mean_against_deviation(statistics, title), out / "deviation.png")


def _left_out(reasons: dict[str, str]) -> list[str]:
    """A line for each reason, with the names of what was left out."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    lines = []
    for reason, found in names.items():
        more = len(found) - _MOST_NAMES
        shown = ", ".join(found[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
        lines.append(f"left out: {shown}: {reason}")
    return lines


def _sentence(summary: dict[str, Any]) -> str:
    count = summary["layers"]
    if not count:
        return "no layer has two channels in both directions"
    parts = [
        f"along {d} channels the mean correlation is {summary[d]['mean']:+.4f}, and in "
        f"{summary[d]['significant']} of {count} layers above chance (p < 0.05)"
        for d in AXES
    ]
    p_value = summary["wilcoxon_p_value"]
    compared = "" if p_value is None else f" (Wilcoxon p = {p_value:.2g})"
    return (
        "; ".join(parts)
        + f"; outputs are more correlated than inputs in {summary['output_above_input']}{compared}"
    )


def _lines(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation over the outputs of the kernel at unit root mean square."""
    if kernel.shape[-1] < 2:
        return np.zeros(0), np.zeros(0)
    kernel = np.asarray(kernel, np.float64)
    kernel = kernel / (np.abs(kernel).max() or 1.0)  # Squares of large weights would be infinite.
    scale = float(np.sqrt(np.mean(np.square(kernel)))) or 1.0
    return correlation.mean_and_deviation(kernel / scale, axis=-1)


if __name__ == "__main__":
    cli_main.run(main, define)
