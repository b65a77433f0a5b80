"""The 3D ConvNet of "3D ConvNets with Optical Flow Based Regularization" on UCF-101 (sections 4-6).

    python -m experiments.ucf101_convnet3d --preset=quick --optflow_strength=1
    python -m experiments.ucf101_convnet3d --sweep=optflow_strength:0,1e-2,1e-1,1,10,1e2 --trials=5
    python -m experiments.ucf101_convnet3d --preset=paper --random_search=20

Without UCF-101 prepared (python -m experiments.prepare_data ucf101) it trains on moving digits,
whose class is the motion. A trial's seed fixes initialisation, order and dropout whatever the
strengths, so runs are compared pair by pair.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
from absl import flags

import optflow_jax
from experiments.cli import common_flags
from experiments.cli import main as cli_main
from experiments.data.dataset import Dataset
from experiments.figures import sweep as figures
from experiments.models.convnet3d import ConvNet3D, narrow
from experiments.system.errors import UserError
from experiments.system.files import write_json
from experiments.training import statistics, sweep
from experiments.training.config import TrainConfig, above, at_least, one_of
from experiments.training.optimizer import make_optimizer
from experiments.training.problem import Problem
from experiments.training.study import Run

NAME = "ucf101_convnet3d"
DATASETS = ("auto", "moving_digits", "ucf101")
FIRST_LAYER = "Conv_0"
SWEPT = ("optflow_strength", "l2_strength", "dropout", "learning_rate", "alpha")
CHANNELS = ("mean", "rgb", "bgr")
# Random search draws log-uniformly, as the paper chose its defaults by hand.
SEARCHED = {
    "learning_rate": (0.1, 10.0),  # times the preset's
    "l2_strength": (1e-5, 1e-1),
    "dropout": (0.05, 0.6),
    "optflow_strength": (1e-3, 1e3),
}

OPTFLOW = flags.DEFINE_float(
    "optflow_strength", 0.0, "Weight of the mean OptFlow cost of the first layer's filters."
)
L2 = flags.DEFINE_float(
    "l2_strength", None, "Weight of the sum of squared parameters. Default: from --preset."
)
DROPOUT = flags.DEFINE_float("dropout", None, "Of the dense layers. Default: from --preset.")
ALPHA = flags.DEFINE_float(
    "alpha",
    1.0,
    "Smoothness parameter of the OptFlow cost. At 1, weights of the usual scale leave the flow "
    "next to nothing to explain; about their mean square, 1e-3, it explains half of the change.",
)
CHANNEL = flags.DEFINE_string(
    "channels", "mean", f"How channels are collapsed. Accepted: {', '.join(CHANNELS)}."
)
MOMENTUM_STEP = flags.DEFINE_float(
    "momentum_step",
    None,
    "Added to the momentum of sgd per epoch, up to 0.9. Default: from --preset.",
)
SIZE = flags.DEFINE_integer(
    "size", None, "Height and width of the moving digits' clips. Default: 32."
)
CLASSES = flags.DEFINE_integer(
    "classes", None, "Learn the first so many classes of UCF-101. Default: all that are prepared."
)
TRAIN_EXAMPLES = flags.DEFINE_integer(
    "train_examples",
    None,
    "Learn from so many training clips only, evenly from all classes. Default: all.",
)
SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "NAME:VALUE,VALUE,... trains one run for each value beside the baseline, on the same seeds; "
    f"may be given several times. NAME is one of {', '.join(SWEPT)}.",
)
RANDOM_SEARCH = flags.DEFINE_integer(
    "random_search",
    None,
    "Train so many runs beside the baseline, with settings drawn log-uniformly in place of those "
    "flags, and report the best by validation: learning_rate from a tenth to ten times the "
    "baseline's, "
    + ", ".join(
        f"{n} from {a:g} to {b:g}" for n, (a, b) in SEARCHED.items() if n != "learning_rate"
    )
    + ".",
)

# Table 1 of the paper; 5,000 iterations, validated every 500.
PAPER = dict(
    optimizer="sgd",
    learning_rate=1e-5,
    momentum=0.5,
    momentum_step=0.1,
    schedule="step",
    decay_epochs=1.0,
    decay_factor=1 / 0.95,
    batch_size=8,
    l2_strength=1e-3,
    dropout=0.2,
)
PAPER_STEPS, PAPER_EVALUATION = 5_000, 500
# What suits the small network on moving digits.
QUICK = PAPER | dict(
    optimizer="adam",
    learning_rate=2e-3,
    momentum_step=0.0,
    schedule="cosine",
    batch_size=16,
    l2_strength=1e-5,
)
QUICK_CLIPS = 12_000


@dataclasses.dataclass(frozen=True)
class VideoConfig(TrainConfig):
    """A TrainConfig and the regularizers of the paper; weight_decay is 2 * l2_strength.

    Attributes:
      clip_size: height and width of the clips.
      train_examples: training clips learnt from. classes: how many of them there are.
      optflow_strength, l2_strength, dropout, alpha, channels: see the flags.
    """

    clip_size: int = 32
    train_examples: int = 0
    classes: int = 10
    optflow_strength: float = 0.0
    l2_strength: float = 1e-3
    dropout: float = 0.2
    alpha: float = 1.0
    channels: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        at_least("optflow_strength", self.optflow_strength, 0.0)
        at_least("l2_strength", self.l2_strength, 0.0)
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"--dropout: got {self.dropout}; accepted is 0 <= dropout < 1")
        above("alpha", self.alpha, 0.0)
        one_of("channels", self.channels, CHANNELS)


def presets(dataset: Dataset, batch_size: int | None = None) -> dict[str, dict]:
    """The presets for a dataset, their lengths turned from steps or clips into epochs.

    Args:
      dataset: what is learnt from.
      batch_size: where it is not the paper's; the paper's number of steps stays.
    """
    clips = len(dataset.train)
    step = 1 / max(1, clips // (batch_size or PAPER["batch_size"]))  # in epochs
    paper = PAPER | dict(epochs=PAPER_STEPS * step, evaluate_every=PAPER_EVALUATION * step)
    epochs = QUICK_CLIPS / clips
    return {"paper": paper, "quick": QUICK | dict(epochs=epochs, evaluate_every=epochs / 8)}


def build(config: VideoConfig, dataset: Dataset) -> Problem:
    """The network, the OptFlow penalty on its first layer and the optimizer."""
    examples = len(dataset.train)
    steps, per_epoch = config.total_steps(examples), config.steps_per_epoch(examples)
    decayed = dataclasses.replace(config, weight_decay=2 * config.l2_strength)
    optimizer, schedule = make_optimizer(decayed, steps, per_epoch)

    def penalty(params):
        kernel = params[FIRST_LAYER]["kernel"]
        cost = optflow_jax.regularizer(kernel, channels=config.channels, alpha=config.alpha)
        return config.optflow_strength * cost

    return Problem(
        dataset=dataset,
        model=network(config, dataset),
        optimizer=optimizer,
        learning_rate=schedule,
        batch_size=config.batch_size,
        steps=steps,
        evaluate_every=config.steps_between_evaluations(examples),
        penalty=penalty if config.optflow_strength else None,
    )


def network(config: VideoConfig, dataset: Dataset) -> ConvNet3D:
    """The paper's network for UCF-101, a narrower one for small clips."""
    make = ConvNet3D if dataset.example_shape[1] >= 64 else narrow
    return make(
        num_classes=dataset.num_classes,
        dropout_rate=config.dropout,
        dtype=jnp.dtype(config.precision),
    )


def limited(dataset: Dataset, examples: int | None) -> Dataset:
    """The dataset with so many of its training examples, evenly from all classes."""
    if examples is None:
        return dataset
    if not 1 <= examples <= len(dataset.train):
        raise UserError(
            f"--train_examples: got {examples}; accepted is 1 to {len(dataset.train)}, the "
            f"training clips of {dataset.name}"
        )
    return dataclasses.replace(dataset, train=dataset.train.subset(examples))


def make_runs(baseline: VideoConfig) -> list[Run]:
    """The runs that --sweep or --random_search ask for, or one."""
    if SWEEP.value and RANDOM_SEARCH.value is not None:
        raise UserError("--sweep and --random_search: got both; accepted is one of them")
    metrics = common_flags.metrics()
    if len(metrics) > 1 and (SWEEP.value or RANDOM_SEARCH.value is not None):
        raise UserError(
            f"--metric: got {','.join(metrics)}; with --sweep or --random_search one is accepted"
        )
    if RANDOM_SEARCH.value is not None:
        at_least("random_search", RANDOM_SEARCH.value, 1)
        low, high = SEARCHED["learning_rate"]
        rate = baseline.learning_rate
        ranges = SEARCHED | {"learning_rate": (low * rate, high * rate)}
        return sweep.random_runs(baseline, ranges, RANDOM_SEARCH.value, common_flags.FLAGS.seed)
    if SWEEP.value:
        return sweep.sweep_runs(baseline, [sweep.parse_sweep(s, SWEPT) for s in SWEEP.value])
    return [Run(m, dataclasses.replace(baseline, metric=m)) for m in metrics]


def conclude_sweep(summary: dict[str, Any], workdir: pathlib.Path) -> str:
    """Writes conclusions.json and the figures of a sweep; the conclusions as a table."""
    if not sweep.ended(summary["runs"][:1]):
        return "no conclusions: no trial of the baseline ended"
    conclusions = sweep.conclusions(summary["runs"])
    write_json(workdir / "conclusions.json", conclusions)
    figures.draw_sweep(workdir, summary["runs"])
    return sweep.conclusions_table(conclusions)


def conclude_search(summary: dict[str, Any], workdir: pathlib.Path) -> str:
    """Draws what random search found; the best run and its settings in words."""
    runs = sweep.ended(summary["runs"])
    if not runs:
        return "no best run: no trial ended"
    figures.draw_search(workdir, runs, list(SEARCHED))
    best = sweep.best_by_validation(runs)
    settings = {name: best["settings"][name] for name in SEARCHED}
    accuracy = {
        which: statistics.describe(sweep.accuracies(best, which))
        for which in ("validation", "test")
    }
    write_json(workdir / "search.json", {"best": best["name"], "settings": settings, **accuracy})
    found = ", ".join(f"{name} {value:g}" for name, value in settings.items())
    percent = 100 * accuracy["validation"]["mean"]
    return f"best by validation ({percent:.2f} %): {best['name']}, {found}"


def main() -> None:
    options = {"size": SIZE.value, "classes": CLASSES.value}
    dataset = common_flags.load_dataset("ucf101", DATASETS, **options)
    dataset = limited(dataset, TRAIN_EXAMPLES.value)
    baseline = VideoConfig(
        dataset=dataset.name,
        model="convnet3d",
        clip_size=dataset.example_shape[1],
        train_examples=len(dataset.train),
        classes=dataset.num_classes,
        metric=common_flags.metrics()[0],
        optflow_strength=OPTFLOW.value,
        alpha=ALPHA.value,
        channels=CHANNEL.value,
        **common_flags.preset_values(presets(dataset, common_flags.FLAGS.batch_size)),
        **common_flags.metric_settings(),
    )
    runs, conclude = make_runs(baseline), None
    if SWEEP.value:
        conclude = conclude_sweep
    elif RANDOM_SEARCH.value is not None:
        conclude = conclude_search
    if conclude and not dataset.validation:
        raise UserError(
            "--sweep, --random_search: this dataset has no validation examples to choose by; "
            "accepted are datasets that have some"
        )
    common_flags.train(NAME, runs, dataset, build, conclude)


if __name__ == "__main__":
    common_flags.define(NAME, DATASETS, without=("weight_decay",))
    flags.adopt_module_key_flags(common_flags)
    cli_main.run(main)
