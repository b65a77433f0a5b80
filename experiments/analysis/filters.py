"""The first layer of a trained 3D ConvNet: its filters, their optical flow, what they respond to.

    python -m experiments.analysis.filters --workdir=runs/ucf101_convnet3d-...

Writes into --out: filters.png, .pdf and .gif (each filter's frames with its optical flow and
OptFlow cost), and for every clip of --clips activations_N.png, .pdf and .gif. It reads the workdir
and never trains.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import optflow_jax
from experiments import data
from experiments.analysis import trials
from experiments.analysis.trials import Recorded
from experiments.cli import lists
from experiments.cli import main as command
from experiments.data.dataset import Dataset
from experiments.data.normalize import normalizer
from experiments.data.validation import with_validation
from experiments.figures import filters as figures
from experiments.models.convnet3d import FIRST_LAYER, conv3d
from experiments.system.errors import ConfigError

EXPERIMENT = "ucf101_convnet3d"
# Of a run without the OptFlow cost, which records neither.
DEFAULT_CHANNELS, DEFAULT_ALPHA = "mean", 1.0


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "what is shown"}
    flags.DEFINE_string("workdir", None, f"Workdir of {EXPERIMENT}.", **where)
    flags.DEFINE_string("run", None, "Which of its runs. Default: the first.", **where)
    flags.DEFINE_integer("seed", None, "Which trial of the run. Default: the first.", **where)
    flags.DEFINE_string(
        "which", "best", "Checkpoint. Accepted: best (by validation), last.", **where
    )
    flags.DEFINE_list("clips", ["0"], "Numbers of test clips whose activations are drawn.", **where)
    flags.DEFINE_string("out", None, "Folder for the figures. Default: WORKDIR/filters.", **where)
    where = {"flag_values": values, "module_name": "data"}
    flags.DEFINE_string(
        "data_dir", None, "Folder of the prepared datasets. Default: that of the run.", **where
    )
    flags.DEFINE_float(
        "validation", None, "--validation of the training command, where it was given.", **where
    )
    flags.DEFINE_integer(
        "train_examples", None,
        "--train_examples of the training command, where --validation was given too.", **where,
    )  # fmt: skip


def main(values: flags.FlagValues) -> None:
    """Draws the figures of one trial."""
    if values.workdir is None:
        raise ConfigError("workdir", "none", f"a folder that experiments.{EXPERIMENT} wrote")
    if values.which not in trials.CHECKPOINTS:
        raise ConfigError("which", repr(values.which), ", ".join(trials.CHECKPOINTS))
    lists.integers("clips", values.clips, 0, 2**31 - 1)
    workdir = pathlib.Path(values.workdir).expanduser()
    trial = trials.read(workdir, EXPERIMENT, values.run, values.seed)
    parameters = trials.read_parameters(trial, values.which)[FIRST_LAYER]
    dataset = load_dataset(trial, values.data_dir, values.validation, values.train_examples)
    clips = lists.integers("clips", values.clips, 0, len(dataset.test) - 1)
    if values.out is None:
        values["out"].value = str(workdir / "filters")
    out = command.out_folder(values)

    channels = trial.settings.get("channels", DEFAULT_CHANNELS)
    filters = optflow_jax.collapse(jnp.asarray(parameters["kernel"]), channels)
    flow = optflow_jax.flow(filters, alpha=trial.settings.get("alpha", DEFAULT_ALPHA))
    figures.draw_filters(
        out,
        np.asarray(filters),
        *map(np.asarray, flow.displacement),
        np.asarray(flow.cost),
        f"{trial.run}, seed {trial.seed}: first layer, {values.which} checkpoint",
    )
    for clip in clips:
        response = activations(parameters, dataset, clip)
        label = dataset.class_names[dataset.test.labels[clip]]
        frames = np.asarray(dataset.test.examples[clip])
        title = f"test clip {clip} ({label}), {trial.run}"
        figures.draw_activations(out, clip, frames, response, title)
    print(f"in {out}:\n  " + "  ".join(sorted(p.name for p in out.iterdir())))


def load_dataset(
    trial: Recorded,
    data_dir: str | None = None,
    validation: float | None = None,
    train_examples: int | None = None,
) -> Dataset:
    """The clips that the trial was trained on, and that it saw them scaled by.

    Args:
      trial: see `trials.read`.
      data_dir: folder of the prepared datasets; by default that of the trial.
      validation: the share that the training command set apart, if any.
      train_examples: the number that was asked for before that.

    Raises:
      ConfigError: these are not the clips of the trial.
    """
    settings = trial.settings
    if train_examples is not None and validation is None:
        raise ConfigError("train_examples", train_examples, "a number with --validation only")
    if trial.dataset == "moving_digits":
        options = {"size": settings["clip_size"]}
    else:
        options = {"classes": settings["classes"]}
    folder = data_dir or trial.data_dir or data.DEFAULT_DATA_DIR
    dataset = data.load(trial.dataset, folder, **options)
    count = settings["train_examples"] if validation is None else train_examples
    if count is not None:
        if not 1 <= count <= len(dataset.train):
            raise ConfigError("train_examples", count, f"1 to {len(dataset.train)}")
        dataset = dataclasses.replace(dataset, train=dataset.train.subset(count))
    if validation is not None:
        dataset = with_validation(dataset, validation)
    if dataset.fingerprint != trial.fingerprint:
        raise ConfigError(
            "data_dir",
            f"{folder}, whose {trial.dataset} has fingerprint {dataset.fingerprint[:12]}",
            f"the clips that the run was trained on, fingerprint {trial.fingerprint[:12]}; if the "
            "run had --validation, give it here too",
        )
    return dataset


def activations(parameters: dict[str, Any], dataset: Dataset, clip: int) -> np.ndarray:
    """The first layer's response to a test clip, (T, H, W, out), after ReLU.

    Args:
      parameters: "kernel" (T, H, W, in, out) and "bias" (out,).
      dataset: the clips; the training clips say how pixels are scaled.
      clip: number of the test clip.
    """
    example = normalizer(dataset.train)(jnp.asarray(dataset.test.examples[clip : clip + 1]))
    response = conv3d(example, jnp.asarray(parameters["kernel"]))
    return np.asarray(jax.nn.relu(response + parameters["bias"])[0])


if __name__ == "__main__":
    command.run(main, define)
