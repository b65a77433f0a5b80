"""The 3D ConvNet of "3D ConvNets with Optical Flow Based Regularization" on UCF-101 (sections 4-6).

    python -m experiments.ucf101_convnet3d --preset=quick --optflow_strength=1
    python -m experiments.ucf101_convnet3d --sweep=optflow_strength:1e-2,1,1e2,1e4,1e5 --trials=5
    python -m experiments.ucf101_convnet3d --preset=paper --random_search=20

Without UCF-101 prepared (python -m experiments.prepare_data ucf101) it trains on moving digits,
whose class is the motion. A trial's seed fixes initialisation, order and dropout whatever the
strengths, so runs are compared pair by pair.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
from absl import flags

import optflow_jax
from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.models.convnet3d import FIRST_LAYER, ConvNet3D, narrow
from experiments.tasks.supervised import Supervised, classification
from experiments.training.config import PRECISIONS, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, composed, setting

CHANNELS = ("mean", "rgb", "bgr")
PAPER_STEPS, PAPER_EVALUATION, QUICK_CLIPS = 5_000, 500, 12_000


def _epochs(steps: int):
    """The epochs that are `steps` steps, whatever the number of clips and the batch size."""

    def value(dataset: Dataset, chosen: dict[str, Any]) -> float:
        return steps / max(1, len(dataset.train) // chosen["batch_size"])

    return value


# Table 1 of the paper; 5,000 iterations, validated every 500. The author's code scales inputs and
# momentum otherwise, so that these rates are far smaller steps here (docs/deviations.md).
PAPER = {
    "learning_rate": 1e-5,
    "momentum": 0.5,
    "momentum_step": 0.1,
    "decay_epochs": 1.0,
    "decay_factor": 1 / 0.95,
    "batch_size": 8,
    "l2_strength": 1e-3,
    "epochs": Derived("5,000 steps", _epochs(PAPER_STEPS)),
    "evaluate_every": Derived("500 steps", _epochs(PAPER_EVALUATION)),
}
# What suits the small network on moving digits.
QUICK = PAPER | {
    "optimizer": "adam",
    "learning_rate": 2e-3,
    "momentum_step": 0.0,
    "schedule": "cosine",
    "batch_size": 16,
    "l2_strength": 1e-5,
    "epochs": Derived("12,000 clips", lambda dataset, chosen: QUICK_CLIPS / len(dataset.train)),
    "evaluate_every": Derived(
        "an eighth of the preset's epochs",
        lambda dataset, chosen: QUICK_CLIPS / len(dataset.train) / 8,
    ),
}


@dataclasses.dataclass(frozen=True)
class VideoConfig(Config):
    """The 3D ConvNet, its optimizer, its length and the regularizers of the paper.

    Attributes:
      clip_size: height and width of the clips, for the record.
      train_examples: number of training clips, for the record.
      classes: number of classes, for the record.
    """

    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    l2_strength: float = setting(
        1e-3, "Weight of the sum of squared parameters.", minimum=0.0, search=(1e-5, 1e1)
    )
    dropout: float = setting(
        0.2, "Dropout probability of the dense layers.", minimum=0.0, below=1.0, search=(0.05, 0.6)
    )
    optflow_strength: float = setting(
        0.0,
        "Weight of the mean OptFlow cost of the first layer's filters.",
        minimum=0.0,
        search=(1e-3, 1e5),
    )
    alpha: float = setting(
        1.0,
        "Smoothness parameter of the OptFlow cost. At 1, weights of the usual scale leave the flow "
        "next to nothing to explain; about their mean square, 1e-3, it explains half of the "
        "change.",
        above=0.0,
    )
    channels: str = setting("mean", "How channels are collapsed.", choices=CHANNELS)
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    model: str = "convnet3d"
    clip_size: int = 32
    train_examples: int = 0
    classes: int = 10

    def used(self) -> set[str]:
        unused = set() if self.optflow_strength else {"alpha", "channels"}
        return super().used() - unused


def build(config: VideoConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, the OptFlow penalty on its first layer and the optimizer."""
    examples = len(dataset.train)
    optimizer, schedule = make_optimizer(
        config.optimizer,
        config.length.steps(examples),
        config.length.steps_per_epoch(examples),
        # The gradient of strength * sum of squares.
        weight_decay=2 * config.l2_strength,
    )

    def penalty(params):
        kernel = params[FIRST_LAYER]["kernel"]
        cost = optflow_jax.regularizer(kernel, channels=config.channels, alpha=config.alpha)
        return config.optflow_strength * cost

    task = classification(
        network(config, dataset),
        dataset,
        optimizer,
        schedule,
        penalty=penalty if config.optflow_strength else None,
    )
    return task, config.length


def network(config: VideoConfig, dataset: Dataset) -> ConvNet3D:
    """The paper's network for UCF-101, a narrower one for small clips."""
    make = ConvNet3D if dataset.example_shape[1] >= 64 else narrow
    return make(
        num_classes=dataset.num_classes,
        dropout_rate=config.dropout,
        dtype=jnp.dtype(config.precision),
    )


def limit(dataset: Dataset, values: flags.FlagValues) -> Dataset:
    """The dataset with --train_examples of its training clips, evenly from all classes."""
    count = values.train_examples
    return dataset if count is None else dataset.with_train_examples(count)


def recorded(dataset: Dataset) -> dict[str, Any]:
    """What the record of a run says about its clips."""
    return {
        "clip_size": dataset.example_shape[1],
        "train_examples": len(dataset.train),
        "classes": dataset.num_classes,
    }


def run_name(config: VideoConfig) -> str:
    """The metric, and "+optflow" where the regularizer is on."""
    return config.optimizer.metric.name + ("+optflow" if config.optflow_strength else "")


EXPERIMENT = Experiment(
    name="ucf101_convnet3d",
    config=VideoConfig,
    presets={"quick": QUICK, "paper": PAPER},
    datasets=("auto", "moving_digits", "ucf101"),
    preferred="ucf101",
    build=build,
    data_flags={
        "size": (int, "Height and width of the clips of moving digits. Default: 32."),
        "classes": (
            int,
            "Number of classes of UCF-101 (the first N of classInd.txt), 2 or more. Default: all "
            "that are prepared.",
        ),
        "train_examples": (
            int,
            "Number of training clips, drawn evenly from all classes. Default: all.",
        ),
    },
    load_options=("size", "classes"),
    limit=limit,
    recorded=recorded,
    run_name=run_name,
)

if __name__ == "__main__":
    EXPERIMENT.run()
