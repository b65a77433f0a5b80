"""ResNet-56 on CIFAR-10 under channel-directed metrics (Channel-directed gradients, section 4).

    python -m experiments.cifar_resnet56 --metric=sobolev --preset=quick
    python -m experiments.cifar_resnet56 --metric=l2,sobolev,reweighted_l2 --trials=5 --preset=paper

Without CIFAR-10 prepared (python -m experiments.prepare_data cifar10) it trains on scikit-learn's
scanned digits. The workdir gets config.json, metrics.jsonl, summary.json, checkpoints, TensorBoard
events and figures.
"""

from __future__ import annotations

import jax.numpy as jnp
from absl import flags

from experiments.cli import common_flags
from experiments.cli import main as cli_main
from experiments.data.dataset import Dataset
from experiments.models.resnet import ResNet
from experiments.system.errors import UserError
from experiments.training.config import TrainConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.preprocess import random_crop_and_flip
from experiments.training.problem import Problem
from experiments.training.study import Run

NAME = "cifar_resnet56"
DATASETS = ("auto", "digits", "cifar10", "mnist", "fashion_mnist")
DEPTH = flags.DEFINE_integer("depth", 56, "Layers of the network: 6 n + 2.")

# The paper: ResNet-56 as in Osher et al., divided by 10 every 40 epochs.
PAPER = dict(
    optimizer="sgd",
    momentum=0.9,
    weight_decay=5e-4,
    schedule="step",
    decay_epochs=40.0,
    decay_factor=10.0,
    batch_size=128,
    epochs=160.0,
    evaluate_every=1.0,
)
# Small batches and a short cosine: the most accuracy in a few minutes of two cores.
QUICK = PAPER | dict(schedule="cosine", batch_size=32)
LEARNING_RATES = {"sgd": 0.1, "adam": 0.01}


def presets(dataset: Dataset) -> dict[str, dict]:
    """The presets for a dataset; quick ones see about 13,000 (digits) or 20,000 images."""
    images = 13_000 if dataset.name == "digits" else 20_000
    epochs = images / len(dataset.train)
    quick = QUICK | dict(epochs=epochs, evaluate_every=epochs / 5)
    return {"quick": quick, "paper": PAPER}


def build(config: TrainConfig, dataset: Dataset, depth: int = 56) -> Problem:
    """The network, the augmentation of He et al. and the optimizer."""
    examples = len(dataset.train)
    steps, per_epoch = config.total_steps(examples), config.steps_per_epoch(examples)
    optimizer, schedule = make_optimizer(config, steps, per_epoch)
    return Problem(
        dataset=dataset,
        model=ResNet(depth, dataset.num_classes, dtype=jnp.dtype(config.precision)),
        optimizer=optimizer,
        learning_rate=schedule,
        batch_size=config.batch_size,
        steps=steps,
        evaluate_every=config.steps_between_evaluations(examples),
        augment=random_crop_and_flip(flip=dataset.mirror_symmetric),
    )


def main() -> None:
    depth = DEPTH.value
    if depth < 8 or depth % 6 != 2:
        raise UserError(f"--depth: got {depth}; accepted are 8, 14, 20, ..., 6 n + 2")
    dataset = common_flags.load_dataset("cifar10", DATASETS)
    settings = common_flags.preset_values(presets(dataset)) | common_flags.metric_settings()
    settings["learning_rate"] = common_flags.FLAGS.learning_rate
    if settings["learning_rate"] is None:
        settings["learning_rate"] = LEARNING_RATES.get(settings["optimizer"])
    metrics = common_flags.metrics()
    runs = [
        Run(m, TrainConfig(dataset=dataset.name, model=f"resnet{depth}", metric=m, **settings))
        for m in metrics
    ]
    common_flags.train(NAME, runs, dataset, lambda c, d: build(c, d, depth))


if __name__ == "__main__":
    common_flags.define(NAME, DATASETS)
    flags.adopt_module_key_flags(common_flags)
    cli_main.run(main)
