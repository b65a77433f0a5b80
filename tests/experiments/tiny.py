"""A training command that compiles in a second, with one convolution, for tests of the flags."""

from __future__ import annotations

import dataclasses

import flax.linen as nn

from experiments.cli.training import Experiment
from experiments.data import digits
from experiments.tasks.supervised import classification
from experiments.training.config import Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, composed


class Tiny(nn.Module):
    """One convolution and one dense layer."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(images))
        return nn.Dense(10)(x.reshape(len(x), -1))


@dataclasses.dataclass(frozen=True)
class TinyConfig(Config):
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    model: str = "tiny"


def build(config, dataset):
    examples, length = len(dataset.train), config.length
    optimizer, schedule = make_optimizer(
        config.optimizer, length.steps(examples), length.steps_per_epoch(examples)
    )
    return classification(Tiny(), dataset, optimizer, schedule), length


EXPERIMENT = Experiment(
    name="tiny",
    config=TinyConfig,
    presets={"quick": {"batch_size": 64, "epochs": 1.0, "learning_rate": 0.05}},
    datasets=("digits",),
    preferred="mnist",
    build=build,
    limit=lambda dataset, values: digits.load(size=8),
)

if __name__ == "__main__":
    EXPERIMENT.run()
