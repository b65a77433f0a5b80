"""Looks at the first layer of a trained 3D ConvNet: its filters, their optical flow, what they see.

    python -m experiments.analysis.filters --workdir=runs/ucf101_convnet3d-...

Writes filters.png and filters.gif (each filter's frames with its optical flow and OptFlow cost),
and for every clip of --clips activations_N.png and .gif, into --out. It reads the workdir and never
trains.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import optflow_jax
from experiments import data
from experiments.cli import main as cli_main
from experiments.data.dataset import Dataset
from experiments.figures import filters as figures
from experiments.system.errors import UserError
from experiments.training.checkpoints import read_latest
from experiments.training.preprocess import normalizer

FLAGS = flags.FLAGS
FIRST_LAYER = "Conv_0"


def define() -> None:
    flags.DEFINE_string("workdir", None, "Workdir of a run of ucf101_convnet3d.", required=True)
    flags.DEFINE_string("run", None, "Which of its runs. Default: the first.")
    flags.DEFINE_integer("seed", None, "Which trial. Default: the first.")
    flags.DEFINE_string("which", "best", "Checkpoint. Accepted: best (by validation), last.")
    flags.DEFINE_list("clips", ["0"], "Numbers of test clips whose activations are drawn.")
    flags.DEFINE_string("data_dir", data.DEFAULT_DATA_DIR, "Where prepared datasets are.")
    flags.DEFINE_string("out", None, "Folder for the figures. Default: WORKDIR/filters.")


def read_run(workdir: pathlib.Path, name: str | None, seed: int | None) -> tuple[str, int, dict]:
    """Name, seed and settings of one trial of a workdir.

    Raises:
      UserError: the workdir holds no such run of the video experiment.
    """
    try:
        settings = json.loads((workdir / "config.json").read_text())["settings"]
        runs, first, trials = settings["runs"], settings["seed"], settings["trials"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"--workdir: {workdir} holds no run of ucf101_convnet3d; accepted is a folder that it "
            "wrote"
        ) from error
    if settings["experiment"] != "ucf101_convnet3d":
        raise UserError(
            f"--workdir: {workdir} holds a run of {settings['experiment']}; accepted is one of "
            "ucf101_convnet3d"
        )
    name = next(iter(runs)) if name is None else name
    if name not in runs:
        raise UserError(f"--run: got {name!r}; accepted are {', '.join(runs)}")
    seed = first if seed is None else seed
    if not first <= seed < first + trials:
        raise UserError(f"--seed: got {seed}; accepted is {first} to {first + trials - 1}")
    return name, seed, runs[name]


def read_parameters(workdir: pathlib.Path, name: str, seed: int, which: str) -> dict:
    """The first layer's "kernel" (T, H, W, in, out) and "bias" (out,)."""
    if which not in ("best", "last"):
        raise UserError(f"--which: got {which!r}; accepted are best, last")
    folder = workdir / "checkpoints" / name / f"seed_{seed}{'_best' if which == 'best' else ''}"
    try:
        return read_latest(folder)["params"][FIRST_LAYER]
    except FileNotFoundError as error:
        raise UserError(f"--workdir: {error}; the trial has not come that far") from error
    except ValueError as error:
        other = "last" if which == "best" else "best"
        raise UserError(f"--which: {error}; accepted may be {other}") from error


def activations(parameters: dict, dataset: Dataset, clip: int) -> np.ndarray:
    """The first layer's response to a test clip, (T, H, W, out), after ReLU."""
    example = normalizer(dataset.train)(jnp.asarray(dataset.test.examples[clip : clip + 1]))
    response = jax.lax.conv_general_dilated(
        example,
        jnp.asarray(parameters["kernel"]),
        window_strides=(1, 1, 1),
        padding="SAME",
        dimension_numbers=("NTHWC", "THWIO", "NTHWC"),
    )
    return np.asarray(jax.nn.relu(response + parameters["bias"])[0])


def chosen_clips(texts: list[str], count: int) -> list[int]:
    """The numbers of --clips."""
    if not all(t.isdecimal() and int(t) < count for t in texts):
        raise UserError(f"--clips: got {','.join(texts)}; accepted are numbers below {count}")
    return [int(t) for t in texts]


def load_dataset(settings: dict) -> Dataset:
    """The clips that the run was trained on."""
    moving = settings["dataset"] == "moving_digits"
    options = {"size": settings["clip_size"]} if moving else {"classes": settings["classes"]}
    dataset = data.load(settings["dataset"], FLAGS.data_dir, own="ucf101", **options)
    learnt_from = dataset.train.subset(settings["train_examples"])
    return dataclasses.replace(dataset, train=learnt_from)  # Pixels are scaled by these.


def main() -> None:
    workdir = pathlib.Path(FLAGS.workdir).expanduser()
    name, seed, settings = read_run(workdir, FLAGS.run, FLAGS.seed)
    parameters = read_parameters(workdir, name, seed, FLAGS.which)
    dataset = load_dataset(settings)
    clips = chosen_clips(FLAGS.clips, len(dataset.test))
    out = pathlib.Path(FLAGS.out).expanduser() if FLAGS.out else workdir / "filters"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot make {out}: {error.strerror}") from error

    filters = optflow_jax.collapse(jnp.asarray(parameters["kernel"]), settings["channels"])
    flow = optflow_jax.flow(filters, alpha=settings["alpha"])
    title = f"{name}, seed {seed}: first layer, {FLAGS.which} checkpoint"
    figures.draw_filters(
        out,
        np.asarray(filters),
        np.asarray(flow.u),
        np.asarray(flow.v),
        np.asarray(flow.cost),
        title,
    )
    for clip in clips:
        response = activations(parameters, dataset, clip)
        label = dataset.class_names[dataset.test.labels[clip]]
        frames = dataset.test.examples[clip]
        figures.draw_activations(out, clip, frames, response, f"test clip {clip} ({label}), {name}")
    print(f"in {out}:\n  " + "  ".join(sorted(p.name for p in out.iterdir())))


if __name__ == "__main__":
    define()
    cli_main.run(main)
