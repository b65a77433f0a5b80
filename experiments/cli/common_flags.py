"""The flags that every training binary shares, their presets, and the frame of a `main`.

A flag that is left out takes the preset's value. Nothing below the binaries reads a flag.
"""

from __future__ import annotations

import datetime
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import data
from experiments.data.dataset import Dataset, DatasetNotPrepared
from experiments.system import environment
from experiments.system.errors import NonFiniteError, UserError
from experiments.training import config as config_lib
from experiments.training import statistics, study
from experiments.training.loop import CheckpointPolicy
from experiments.training.workdir import Workdir

FLAGS = flags.FLAGS
_PRESET_DEFAULT = "Default: from --preset."


def define(
    experiment: str,
    datasets: tuple[str, ...] = data.AVAILABLE,
    without: tuple[str, ...] = (),
) -> None:
    """Defines the shared flags for the binary `experiment`, except those in `without`.

    Args:
      experiment: its name.
      datasets: those that it trains on, "auto" among them.
      without: names of flags that it does not have.
    """
    flags.DEFINE_list(
        "metric",
        ["l2"],
        "Metrics to take the gradient under, separated by commas; the first is the baseline of the "
        f"comparison. Accepted: {', '.join(config_lib.METRICS)}.",
    )
    flags.DEFINE_float("lam", 1.0, "lambda of the metrics reweighted_l2 and sobolev.")
    flags.DEFINE_float("l2_weight", 1.0, "Weight of the L2 gradient added by the metric sobolev.")
    flags.DEFINE_float("sigma", 1.0, "sigma of the metric laplacian.")
    flags.DEFINE_string(
        "form", "code", f"Form of reweighted_l2. Accepted: {', '.join(config_lib.FORMS)}."
    )
    flags.DEFINE_string(
        "discretization",
        "exact",
        f"Of sobolev. Accepted: {', '.join(config_lib.DISCRETIZATIONS)}.",
    )
    flags.DEFINE_string(
        "direction",
        "output",
        "Axis along which the metric is smooth. Accepted: output and input (channels), raster (the "
        "whole tensor as one line).",
    )
    flags.DEFINE_string(
        "layers", "conv", "Layers the metric acts in. Accepted: conv, all (dense layers too)."
    )
    flags.DEFINE_string(
        "optimizer", None, f"Accepted: {', '.join(config_lib.OPTIMIZERS)}. {_PRESET_DEFAULT}"
    )
    flags.DEFINE_float("learning_rate", None, f"Learning rate. {_PRESET_DEFAULT}")
    flags.DEFINE_float("momentum", None, f"Momentum of sgd. {_PRESET_DEFAULT}")
    if "weight_decay" not in without:
        flags.DEFINE_float(
            "weight_decay", None, f"Added as weight_decay * weights. {_PRESET_DEFAULT}"
        )
    flags.DEFINE_string(
        "schedule",
        None,
        "Learning rate over time. Accepted: step (divided by --decay_factor every --decay_epochs), "
        f"cosine (up over the first tenth, then down to zero). {_PRESET_DEFAULT}",
    )
    flags.DEFINE_float("decay_epochs", None, f"See --schedule. {_PRESET_DEFAULT}")
    flags.DEFINE_float("decay_factor", None, f"See --schedule. {_PRESET_DEFAULT}")
    flags.DEFINE_integer("batch_size", None, f"Examples per step. {_PRESET_DEFAULT}")
    flags.DEFINE_float("epochs", None, f"Length; may be a fraction. {_PRESET_DEFAULT}")
    flags.DEFINE_float(
        "evaluate_every", None, f"Epochs between evaluations; may be a fraction. {_PRESET_DEFAULT}"
    )
    flags.DEFINE_integer("trials", 1, "Trials of each run, on the same seeds for all.")
    flags.DEFINE_integer("seed", 0, "Seed of the first trial; the others follow it.")
    flags.DEFINE_string(
        "dataset",
        "auto",
        "auto takes the experiment's own dataset if it is prepared under --data_dir, else one that "
        f"needs no download. Accepted: {', '.join(datasets)}.",
    )
    flags.DEFINE_string("data_dir", data.DEFAULT_DATA_DIR, "Where prepared datasets are.")
    flags.DEFINE_string(
        "workdir",
        None,
        f"Folder for results, checkpoints and figures. Default: runs/{experiment}-DATE-TIME.",
    )
    flags.DEFINE_bool("resume", False, "Go on with the run that is in --workdir.")
    flags.DEFINE_integer(
        "checkpoint_every", None, "Steps between checkpoints, besides one after each evaluation."
    )
    flags.DEFINE_string(
        "preset",
        "quick",
        "Settings for the flags left out. Accepted: quick (minutes on two CPU cores), paper (the "
        "paper's setting: hours on a GPU).",
    )
    flags.DEFINE_string(
        "precision",
        "float32",
        f"What convolutions compute in. Accepted: {', '.join(config_lib.PRECISIONS)}.",
    )


def preset_values(presets: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The chosen preset's values, each replaced by its flag where that is given.

    Args:
      presets: values by the name of the preset; the keys are names of flags.
    """
    config_lib.one_of("preset", FLAGS.preset, tuple(presets))
    return {
        name: value if FLAGS[name].value is None else FLAGS[name].value
        for name, value in presets[FLAGS.preset].items()
    }


def load_dataset(own: str, datasets: tuple[str, ...], **options: Any) -> Dataset:
    """The dataset that --dataset and --data_dir name.

    Args:
      own: the experiment's own dataset.
      datasets: those that it trains on, "auto" among them.
      **options: flags that some of them know.
    """
    config_lib.one_of("dataset", FLAGS.dataset, datasets)
    try:
        return data.load(FLAGS.dataset, FLAGS.data_dir, own=own, **options)
    except DatasetNotPrepared:
        raise
    except ValueError as error:  # An option is a flag of the same name.
        raise UserError(f"--{error}") from error


def metrics() -> list[str]:
    """The metrics of --metric, each once."""
    if not FLAGS.metric:
        raise UserError(f"--metric: got none; accepted are {', '.join(config_lib.METRICS)}")
    for name in FLAGS.metric:
        config_lib.one_of("metric", name, config_lib.METRICS)
        if FLAGS.metric.count(name) > 1:
            raise UserError(f"--metric: got {name} twice; accepted is each metric once")
    return FLAGS.metric


def metric_settings() -> dict[str, Any]:
    """The fields of a TrainConfig that are flags with a default of their own."""
    names = "lam l2_weight sigma form discretization direction layers precision".split()
    return {name: FLAGS[name].value for name in names}


def train(
    experiment: str,
    runs: list[study.Run],
    dataset: Dataset,
    build: Callable[..., Any],
    conclude: Callable[[dict[str, Any], pathlib.Path], str] | None = None,
) -> dict[str, Any]:
    """Trains the runs on --trials seeds from --seed on, and prints the comparison table.

    Args:
      experiment: name of the binary.
      runs, dataset, build: see `study.run_study`.
      conclude: is given the summary and the workdir, may write there, and returns what to print;
        called even if some trials failed.

    Returns:
      summary.json as a dict.

    Raises:
      NonFiniteError: at the very end, if a trial failed.
    """
    config_lib.at_least("trials", FLAGS.trials, 1)
    config_lib.at_least("seed", FLAGS.seed, 0)
    if FLAGS.checkpoint_every is not None:
        config_lib.at_least("checkpoint_every", FLAGS.checkpoint_every, 1)
    if FLAGS.resume and FLAGS.workdir is None:
        raise UserError("--resume: got no --workdir; accepted with the --workdir of an earlier run")
    for run in runs:  # Before anything is written: the batch may not fit the data.
        run.config.steps_per_epoch(len(dataset.train))
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    FLAGS.workdir = FLAGS.workdir or f"runs/{experiment}-{stamp}"
    workdir = Workdir(
        FLAGS.workdir,
        {
            "experiment": experiment,
            "seed": FLAGS.seed,
            "trials": FLAGS.trials,
            "runs": {run.name: run.config.to_json() for run in runs},
        },
        resume=FLAGS.resume,
        record={"provenance": dataset.provenance, "environment": environment.describe()},
    )
    if FLAGS.resume and not workdir.existed:
        print(f"nothing to resume in {workdir.path}: training from the first step", flush=True)
    print(f"results, checkpoints and figures: {workdir.path}", flush=True)
    seeds = range(FLAGS.seed, FLAGS.seed + FLAGS.trials)
    policy = CheckpointPolicy(steps=FLAGS.checkpoint_every)
    summary = study.run_study(runs, list(seeds), dataset, build, workdir, policy)
    print(f"\n{statistics.table(summary)}")
    if conclude is not None:
        print(f"\n{conclude(summary, workdir.path)}")
    print(f"\nin {workdir.path}:")
    print("  " + "  ".join(sorted(p.name for p in workdir.path.iterdir() if p.is_file())))
    failed = study.failures(summary)
    if failed:
        raise NonFiniteError(f"{len(failed)} trials did not end: {'; '.join(failed)}")
    return summary
