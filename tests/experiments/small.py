"""Small datasets, networks and tasks that the tests of the engine share."""

from __future__ import annotations

import flax.linen as nn
import numpy as np
import optax

from experiments.data.dataset import Dataset, Split
from experiments.tasks.supervised import classification
from experiments.training.execution import Executor, Plan

HOST = Plan(steps_per_dispatch=1, device_resident=False)
DEVICE = Plan(steps_per_dispatch=3, device_resident=True)
BATCH = 5


class Linear(nn.Module):
    """One dense layer on the mean colour, without a bias."""

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(3, use_bias=False)(images.mean(axis=(1, 2)))


class Small(nn.Module):
    """A network with everything that a state can hold: batch statistics, dropout."""

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3))(images)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x.mean(axis=(1, 2)))
        return nn.Dense(3)(x)


def random_split(count, shape=(6, 6, 2), seed=0):
    rng = np.random.default_rng(seed)
    examples = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
    return Split(examples, rng.integers(0, 3, count).astype(np.int32))


def random_dataset(train=23, test=11, validation=None):
    return Dataset(
        "random",
        random_split(train),
        random_split(test, seed=1),
        ("a", "b", "c"),
        "random numbers",
        validation=None if validation is None else random_split(validation, seed=2),
    )


def classifier(model, dataset=None, rate=0.1, **options):
    """A classifier of random images, trained by SGD with momentum."""
    schedule = optax.constant_schedule(rate)
    optimizer = optax.sgd(schedule, momentum=0.9)
    return classification(model, dataset or random_dataset(), optimizer, schedule, **options)


def executor(task, plan=HOST, dataset=None):
    return Executor(task, dataset or random_dataset(), BATCH, plan)
