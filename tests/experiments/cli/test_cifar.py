"""What the CIFAR commands share: cutout and mixup are off unless asked for, to the bit."""

import jax
import numpy as np
import optax
import pytest

from experiments import data
from experiments.cifar_resnet56 import CifarConfig, build
from experiments.cli import cifar
from experiments.data.normalize import normalizer
from experiments.system.errors import ConfigError
from experiments.tasks.augmentation import random_crop_and_flip
from experiments.tasks.supervised import Supervised
from experiments.training.execution import Executor, batches
from experiments.training.settings import record, with_settings
from tests.experiments.tiny import Tiny


@pytest.fixture(scope="module")
def dataset():
    return data.load("digits", size=8).with_train_examples(64)


def config(**changes):
    return with_settings(CifarConfig(), {"depth": 8, "batch_size": 16, **changes})


def built(dataset, **changes):
    """The task of the commands, with a network that compiles in a second."""
    chosen = config(**changes)
    parts = (chosen.optimizer, chosen.length, chosen.weight_decay, dataset, chosen.augmentation)
    return cifar.build(Tiny(), *parts)[0]


def after_steps(task, dataset, steps=3):
    run = Executor(task, dataset, 16)
    state, order = run.initial_state(0), batches(0, len(dataset.train), 16, 0)
    for _ in range(steps):
        state = run.train(state, order, 1, 0)
    return jax.tree.leaves(state.state), run, state


def test_off_they_change_no_bit(dataset):
    task = built(dataset)
    # The task as it was before there were such options.
    before = Supervised(
        model=task.model,
        example_shape=dataset.example_shape,
        optimizer=task.optimizer,
        learning_rate=task.learning_rate,
        loss=optax.softmax_cross_entropy_with_integer_labels,
        statistics=lambda logits, labels, mask: {
            "hits": ((logits.argmax(-1) == labels) & mask).sum(), "examples": mask.sum(),
        },
        finalize=lambda sums: {"accuracy": float(sums["hits"] / sums["examples"])},
        headline=task.headline,
        normalize=normalizer(dataset.train),
        augment=random_crop_and_flip(flip=False),
    )  # fmt: skip
    found, _, _ = after_steps(task, dataset)
    expected, _, _ = after_steps(before, dataset)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not {"stochastic_depth", "cutout", "mixup"} & record(config()).keys()


def test_on_they_train_and_are_recorded(dataset):
    on = {"stochastic_depth": 0.5, "cutout": 4, "mixup": 0.2}
    assert on.items() <= record(config(**on)).items()
    assert build(config(**on), dataset)[0].model.stochastic_depth == 0.5
    found, run, state = after_steps(built(dataset, **on), dataset)
    plain, _, _ = after_steps(built(dataset), dataset)
    assert any(np.any(a != b) for a, b in zip(found, plain, strict=True))
    assert all(np.all(np.isfinite(leaf)) for leaf in found)
    # Accuracy of mixed labels while training, of classes in evaluation.
    assert 0 <= run.training_metrics(state)["accuracy"] <= 1
    assert 0 <= run.evaluate(state, dataset.test)["accuracy"] <= 1


def test_a_square_larger_than_the_image_is_refused(dataset):
    with pytest.raises(ConfigError, match="cutout: got 9; accepted: 0 to 8"):
        build(config(cutout=9), dataset)
