"""Are the filters of a trained network correlated along its output channels?

    python -m experiments.analysis.correlation --kernels=FILE --out=DIR
    python -m experiments.analysis.correlation --workdir=W --out=DIR

"Channel-Directed Gradients for Optimization of Convolutional Neural Networks", figures 1, 11, 13
and 14: the kernels of any network, from a .npz, .safetensors or .onnx file or from a training run.
Takes seconds to a few minutes. Leaves in DIR:

  correlation.json   {layer: {"output": [correlation at |i - j| = 1, 2, ...], "input": [...], ...}}
  correlation.csv    one row for each layer
  summary.json       all layers together, the file that was read, versions
  distance.png       correlation against |i - j| (figure 11)      each figure as .pdf too
  histogram.png      of all pairs of channels of one layer (figure 13)
  kernel.png         that layer's weights (figure 1)
  deviation.png      mean against deviation over output channels (figure 14)
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
from experiments.cli import main as cli_main
from experiments.figures import correlation as figures
from experiments.system import environment
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json, write_text
from experiments.system.onnx_files import read_convolutions
from experiments.system.tensor_files import read_tensors
from experiments.training.checkpoints import read_latest

FLAGS = flags.FLAGS
LAYOUTS = ("HWIO", "OIHW")
# Flax saves .npz files as a rule, and PyTorch .safetensors; an .onnx file can only be OIHW.
GUESSED = {".npz": "HWIO", ".safetensors": "OIHW", ".onnx": "OIHW"}
# Within (height, width, in, out).
AXES = {"output": {"axis": -1, "other": -2}, "input": {"axis": -2, "other": -1}}


def define() -> None:
    flags.DEFINE_string("out", None, "Folder for figures, tables and numbers.", required=True)
    flags.DEFINE_string("kernels", None, "Weights. Accepted: .npz, .safetensors, .onnx.")
    flags.DEFINE_string("workdir", None, "Workdir of a training run, in place of --kernels.")
    flags.DEFINE_string("run", None, "Which run of the workdir. Default: the first.")
    flags.DEFINE_integer("seed", None, "Which trial of that run. Default: the first.")
    flags.DEFINE_string(
        "layout", "auto", "Axes of the kernels. Accepted: auto (by the file's format), HWIO, OIHW."
    )
    flags.DEFINE_string("layer", None, "Layer of histogram.png and kernel.png. Default: largest.")
    flags.DEFINE_integer("max_distance", 64, "Largest |i - j|.", lower_bound=1)
    flags.DEFINE_integer("samples", 1000, "Draws of each permutation test.", lower_bound=1)


def read_kernels(path: pathlib.Path, layout: str) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """The convolution kernels of a file.

    Args:
      path: .npz, .safetensors or .onnx; a kernel is any floating array of three axes or more.
      layout: "auto", "HWIO" or "OIHW"; height and width stand for any number of axes.

    Returns:
      ({layer: (*window, in, out)}, the layout that was taken, names of grouped convolutions, which
      are left out because their outputs do not share inputs; only .onnx tells which those are).

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
    grouped = []
    if path.suffix == ".onnx":
        convolutions = read_convolutions(path)
        grouped = [name for name, found in convolutions.items() if found.groups > 1]
        arrays = {name: found.kernel for name, found in convolutions.items() if found.groups == 1}
    else:
        arrays = read_tensors(path)
    kernels = {
        name: np.moveaxis(array, (0, 1), (-1, -2)) if taken == "OIHW" else array
        for name, array in arrays.items()
        if array.ndim >= 3 and _is_floating(array)
    }
    return kernels, taken, grouped


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
    runs = sorted(p.name for p in (workdir / "checkpoints").glob("*") if p.is_dir())
    if not runs:
        raise ConfigError("workdir", workdir, "a folder that a training command wrote")
    run = runs[0] if run is None else run
    if run not in runs:
        raise ConfigError("run", run, ", ".join(runs))
    folders = {
        int(p.name.removeprefix("seed_")): p
        for p in (workdir / "checkpoints" / run).glob("seed_*")
        if p.name.removeprefix("seed_").isdecimal()
    }
    seed = min(folders, default=0) if seed is None else seed
    if seed not in folders:
        raise ConfigError("seed", seed, ", ".join(map(str, sorted(folders))) or "none is there yet")
    try:
        state = read_latest(folders[seed])
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError("workdir", workdir, f"a run with a checkpoint; {error}") from error
    # One network has "params", a task of several has them under "networks".
    parameters = state["params"] if "params" in state else state["networks"]
    return {
        path: np.asarray(leaf)
        for path, leaf in _leaves(parameters)
        if path.endswith("kernel") and np.ndim(leaf) >= 3
    }


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


def main() -> None:
    if (FLAGS.kernels is None) == (FLAGS.workdir is None):
        raise UserError("--kernels, --workdir: got both or none; accepted: one of the two")
    out = pathlib.Path(FLAGS.out).expanduser()
    source: dict[str, Any]
    if FLAGS.kernels is not None:
        path = pathlib.Path(FLAGS.kernels).expanduser()
        kernels, layout, grouped = read_kernels(path, FLAGS.layout)
        guessed = " (guessed from the format)" if FLAGS.layout == "auto" else ""
        print(f"{path.name}: {len(kernels)} kernels, layout {layout}{guessed}")
        if grouped:
            print(f"left out: {len(grouped)} grouped convolutions, whose outputs share no inputs")
        source = {
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "layout": layout,
            "grouped_convolutions_left_out": grouped,
        }
    else:
        workdir = pathlib.Path(FLAGS.workdir).expanduser()
        kernels = read_workdir(workdir, FLAGS.run, FLAGS.seed)
        source = {"workdir": workdir.name, "run": FLAGS.run, "seed": FLAGS.seed}
    kernels = {name: k for name, k in kernels.items() if k.shape[-1] > 1 or k.shape[-2] > 1}
    if not kernels:
        raise UserError(f"{source}: has no convolution kernel with two channels or more")
    shown = FLAGS.layer or max(kernels, key=lambda name: kernels[name].size)
    if shown not in kernels:
        raise ConfigError("layer", FLAGS.layer, ", ".join(kernels))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError("out", out, f"a folder that can be made; {error.strerror}") from error

    layers = {}
    for number, (name, kernel) in enumerate(kernels.items(), 1):
        print(f"\r{number}/{len(kernels)} {name[:60]:60}", end="", flush=True)
        layers[name] = analyse(kernel, FLAGS.max_distance, FLAGS.samples)
    print()
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
    draw(out, source.get("file", source.get("workdir", "")), kernels, layers, shown)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip())
    print(_sentence(summary))
    print(f"in {out}:\n  " + "  ".join(sorted(p.name for p in out.iterdir())))


def draw(
    out: pathlib.Path,
    title: str,
    kernels: dict[str, np.ndarray],
    layers: dict[str, dict[str, Any]],
    shown: str,
) -> None:
    """Writes the four figures."""
    figures.save(figures.by_distance(layers, title), out, "distance")
    kernel = kernels[shown]
    densities, means = {}, {}
    for direction, axes in AXES.items():
        matrix = correlation.matrix(kernel, **axes)
        densities[direction], edges = correlation.histogram(matrix, bins=100)
        pairs = matrix[np.triu_indices(len(matrix), 1)]
        known = pairs[~np.isnan(pairs)]
        means[direction] = float(known.mean()) if known.size else 0.0
    label = f"{title}: {shown}, {'x'.join(map(str, kernel.shape))}"
    figures.save(figures.histograms(densities, edges, means, label), out, "histogram")
    balanced = np.moveaxis(correlation.balance(kernel), (-1, -2), (0, 1))
    figures.save(figures.kernel_picture(balanced, label), out, "kernel")
    statistics = {name: _lines(k) for name, k in kernels.items()}
    figures.save(figures.mean_against_deviation(statistics, title), out, "deviation")


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
    scale = float(np.sqrt(np.mean(np.square(kernel, dtype=np.float64)))) or 1.0
    return correlation.mean_and_deviation(np.asarray(kernel, np.float64) / scale, axis=-1)


def _is_floating(array: np.ndarray) -> bool:
    # bfloat16 is not among NumPy's own floating types.
    return array.dtype.kind == "f" or array.dtype.name == "bfloat16"


def _leaves(tree: Any, path: tuple[str, ...] = ()) -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key in tree for leaf in _leaves(tree[key], (*path, str(key)))]
    return [("/".join(path), tree)]


if __name__ == "__main__":
    define()
    cli_main.run(main)
