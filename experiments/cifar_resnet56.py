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

from experiments.cli import cifar
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.models.resnet import ResNet
from experiments.system.errors import ConfigError
from experiments.tasks.supervised import Supervised
from experiments.training.config import PRECISIONS, Length, OptimizerConfig
from experiments.training.settings import Config, composed, setting


@dataclasses.dataclass(frozen=True)
class CifarConfig(Config):
    """A residual network, its optimizer and the length of its training."""

    depth: int = setting(56, "Layers of the network: 6 n + 2.", minimum=8)
    weight_decay: float = setting(
        5e-4,
        "Added to the gradient as weight_decay * weights; see --optimizer.",
        minimum=0.0,
        search=(1e-5, 1e-2),
    )
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    stochastic_depth: float = setting(
        0.0,
        "Probability that the last residual block is left out of a training step; it falls "
        "linearly to the first. 0: every block is always there.",
        minimum=0.0,
        below=1.0,
    )
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    augmentation: cifar.AugmentationConfig = composed(cifar.AugmentationConfig)
    model: str = ""

    def __post_init__(self):
        super().__post_init__()
        if self.depth % 6 != 2 or self.depth > 10_000:
            raise ConfigError("depth", self.depth, "8, 14, 20, ..., 6 n + 2, up to 10,000")
        object.__setattr__(self, "model", f"resnet{self.depth}")

    def used(self) -> set[str]:
        # Recorded only where it is on, so studies from before keep their identity.
        return super().used() - (set() if self.stochastic_depth else {"stochastic_depth"})


def build(config: CifarConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, the augmentation of He et al. and the optimizer."""
    model = ResNet(
        config.depth,
        dataset.num_classes,
        dtype=jnp.dtype(config.precision),
        stochastic_depth=config.stochastic_depth,
    )
    return cifar.build(
        model, config.optimizer, config.length, config.weight_decay, dataset, config.augmentation
    )


EXPERIMENT = Experiment(
    name="cifar_resnet56",
    config=CifarConfig,
    presets=cifar.presets(sgd_rate=0.1, digits=13_000, others=20_000),
    datasets=cifar.DATASETS,
    preferred="cifar10",
    build=build,
)

if __name__ == "__main__":
    EXPERIMENT.run()
