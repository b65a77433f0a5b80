"""A conditional GAN of digits as a command, for tests of killing and resuming.

The label map of an image is where it is bright; the networks are a few convolutions.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset, Split
from experiments.tasks.conditional_gan import ConditionalGan
from experiments.training.config import Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, composed


class Generator(nn.Module):
    @nn.compact
    def __call__(self, condition, train):
        noise = jax.random.normal(self.make_rng("latent"), condition.shape)
        x = nn.Conv(4, (3, 3))(jnp.concatenate([condition, noise], axis=-1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return jnp.tanh(nn.Conv(3, (1, 1))(nn.relu(x)))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, images, condition, train):
        x = jnp.concatenate([images, condition], axis=-1)
        features = nn.leaky_relu(nn.Conv(4, (3, 3), strides=2)(x), 0.2)
        return [[features, nn.Conv(1, (3, 3))(features)]]


@dataclasses.dataclass(frozen=True)
class GanConfig(Config):
    generator: OptimizerConfig = composed(OptimizerConfig, prefix="generator_")
    discriminator: OptimizerConfig = composed(OptimizerConfig, prefix="discriminator_")
    length: Length = composed(Length)


def with_label_maps(dataset, values):
    def split(part):
        size = slice(None, None, 4)
        images = np.ascontiguousarray(part.examples[:, size, size])
        return Split(images, (images[..., 0] > 64).astype(np.int32))

    test = dataset.test
    few = Split(test.examples[:50], test.labels[:50])
    return Dataset("maps", split(dataset.train), split(few), ("dark", "bright"), "digits")


def build(config, dataset):
    steps = config.length.steps(len(dataset.train))
    per_epoch = config.length.steps_per_epoch(len(dataset.train))
    (generator, rate), (discriminator, other_rate) = (
        make_optimizer(which, steps, per_epoch)
        for which in (config.generator, config.discriminator)
    )
    task = ConditionalGan(
        generator=Generator(),
        discriminator=Discriminator(),
        example_shape=dataset.example_shape,
        condition=lambda labels: jax.nn.one_hot(labels, 2),
        generator_optimizer=generator,
        discriminator_optimizer=discriminator,
        schedules={"generator_rate": rate, "discriminator_rate": other_rate},
        features=lambda images: images[:, ::4, ::4, 0].reshape(len(images), -1),
        colors=np.array([[0, 0, 90], [250, 250, 0]], np.uint8),
        final_train_examples=len(dataset.test),
    )
    return task, config.length


PRESETS = {
    "quick": {
        "generator_learning_rate": 1e-3,
        "discriminator_learning_rate": 4e-3,
        "generator_metric": "sobolev",
        "batch_size": 16,
        "epochs": 0.3,
        "evaluate_every": 0.1,
    }
}
EXPERIMENT = Experiment(
    "tiny_gan", GanConfig, PRESETS, ("digits",), "cifar10", build, limit=with_label_maps
)
