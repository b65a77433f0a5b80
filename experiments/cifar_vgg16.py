"""VGG-16 on CIFAR-10 under channel-directed metrics (Channel-directed gradients, section 4).

    python -m experiments.cifar_vgg16 --metric=sobolev --preset=quick
    python -m experiments.cifar_vgg16 --metric=l2,sobolev,reweighted_l2 --trials=5 --preset=paper

The cells of the paper's table 2 are --preset=paper with --batch_size=128, 32 or 8. Without CIFAR-10
prepared (python -m experiments.prepare_data cifar10) it trains on scikit-learn's scanned digits.
The workdir gets config.json, metrics.jsonl, summary.json, checkpoints, TensorBoard events and
figures.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp

from experiments.cli import cifar
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.models.vgg import STAGES, VGG16
from experiments.system.errors import ConfigError
from experiments.tasks.supervised import Supervised
from experiments.training.config import PRECISIONS, Length, OptimizerConfig
from experiments.training.settings import Config, composed, setting


@dataclasses.dataclass(frozen=True)
class VggConfig(Config):
    """VGG-16, its optimizer and the length of its training."""

    narrowing: int = setting(
        1,
        "Divides the channels of each layer: 1 is the paper's network with 14.7 million "
        "parameters; 2, 4, ..., 64 are smaller ones.",
        minimum=1,
    )
    weight_decay: float = setting(
        5e-4,
        "Added to the gradient as weight_decay * weights; see --optimizer.",
        minimum=0.0,
        search=(1e-5, 1e-2),
    )
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    augmentation: cifar.AugmentationConfig = composed(cifar.AugmentationConfig)
    model: str = ""

    def __post_init__(self):
        super().__post_init__()
        if STAGES[0][0] % self.narrowing:
            raise ConfigError("narrowing", self.narrowing, "1, 2, 4, ..., 64")
        name = "vgg16" if self.narrowing == 1 else f"vgg16_by_{self.narrowing}"
        object.__setattr__(self, "model", name)


def build(config: VggConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, the augmentation of He et al. and the optimizer."""
    model = VGG16(dataset.num_classes, config.narrowing, jnp.dtype(config.precision))
    return cifar.build(
        model, config.optimizer, config.length, config.weight_decay, dataset, config.augmentation
    )


EXPERIMENT = Experiment(
    name="cifar_vgg16",
    config=VggConfig,
    presets=cifar.presets(sgd_rate=0.01, digits=4_000, others=4_000, batch_size=16, evaluations=2),
    datasets=cifar.DATASETS,
    preferred="cifar10",
    build=build,
)

if __name__ == "__main__":
    EXPERIMENT.run()
