"""ResNet-56 on CIFAR-10 under channel-directed metrics (Channel-directed gradients, section 4).

    python -m experiments.cifar_resnet56 --metric=sobolev --preset=quick
    python -m experiments.cifar_resnet56 --metric=l2,sobolev,reweighted_l2 --trials=5 --preset=paper

Without CIFAR-10 prepared (python -m experiments.prepare_data cifar10) it trains on scikit-learn's
scanned digits. The workdir gets config.json, metrics.jsonl, summary.json, checkpoints, TensorBoard
events and figures.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.models.resnet import ResNet
from experiments.system.errors import ConfigError
from experiments.tasks.augmentation import random_crop_and_flip
from experiments.tasks.supervised import Supervised, classification
from experiments.training.config import PRECISIONS, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, composed, setting

# The paper's table 2: the rate of Adam is not SGD's.
LEARNING_RATE = Derived(
    "0.1 for sgd, 0.01 for adam",
    lambda dataset, chosen: 0.01 if chosen.get("optimizer") == "adam" else 0.1,
)
# ResNet-56 as in Osher et al.: the learning rate is divided by 10 every 40 epochs.
PAPER = {"learning_rate": LEARNING_RATE}


def _quick_epochs(dataset: Dataset) -> float:
    return (13_000 if dataset.name == "digits" else 20_000) / len(dataset.train)


# Small batches and a short cosine: the most accuracy in a few minutes of two cores.
QUICK = PAPER | {
    "schedule": "cosine",
    "batch_size": 32,
    "epochs": Derived(
        "13,000 images of digits, 20,000 of other datasets",
        lambda dataset, chosen: _quick_epochs(dataset),
    ),
    "evaluate_every": Derived(
        "a fifth of the preset's epochs", lambda dataset, chosen: _quick_epochs(dataset) / 5
    ),
}


@dataclasses.dataclass(frozen=True)
class CifarConfig(Config):
    """A residual network, its optimizer and the length of its training."""

    depth: int = setting(56, "Layers of the network: 6 n + 2.", minimum=8)
    weight_decay: float = setting(
        5e-4, "Added to the gradient as weight_decay * weights.", minimum=0.0, search=(1e-5, 1e-2)
    )
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    model: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.depth % 6 != 2 or self.depth > 10_000:
            raise ConfigError("depth", self.depth, "8, 14, 20, ..., 6 n + 2, up to 10,000")
        object.__setattr__(self, "model", f"resnet{self.depth}")


def build(config: CifarConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, the augmentation of He et al. and the optimizer."""
    examples = len(dataset.train)
    optimizer, schedule = make_optimizer(
        config.optimizer,
        config.length.steps(examples),
        config.length.steps_per_epoch(examples),
        weight_decay=config.weight_decay,
    )
    model = ResNet(config.depth, dataset.num_classes, dtype=jnp.dtype(config.precision))
    augment = random_crop_and_flip(flip=dataset.mirror_symmetric)
    return classification(model, dataset, optimizer, schedule, augment=augment), config.length


EXPERIMENT = Experiment(
    name="cifar_resnet56",
    config=CifarConfig,
    presets={"quick": QUICK, "paper": PAPER},
    datasets=("auto", "digits", "cifar10", "mnist", "fashion_mnist"),
    preferred="cifar10",
    build=build,
)

if __name__ == "__main__":
    EXPERIMENT.run()
