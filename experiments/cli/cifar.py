"""What the training commands for CIFAR-10 share: presets, augmentation, optimizer."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from experiments.cli.flags import Derived
from experiments.data.dataset import Dataset
from experiments.tasks.augmentation import random_crop_and_flip
from experiments.tasks.supervised import Supervised, classification
from experiments.training.config import DECOUPLED, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer

DATASETS = ("auto", "digits", "cifar10", "mnist", "fashion_mnist")


def presets(
    sgd_rate: float, digits: int, others: int, batch_size: int = 32, evaluations: int = 5
) -> dict[str, dict[str, Any]]:
    """The presets quick and paper.

    paper is section 4 of Channel-directed gradients, after Osher et al.: the learning rate is
    divided by 10 every 40 of 160 epochs. quick is for a few minutes of two cores: small batches and
    a short cosine.

    Args:
      sgd_rate: the learning rate of sgd.
      digits: images that quick trains on, of digits.
      others: the same of other datasets.
      batch_size: of quick.
      evaluations: of quick, evenly spaced.
    """
    # SGD and Adam as in the paper; AdamW and Muon as they are usually run.
    rates = {"sgd": sgd_rate, "adam": 0.01, "adamw": 1e-3, "muon": 1e-3}

    def quick_epochs(dataset: Dataset) -> float:
        return (digits if dataset.name == "digits" else others) / len(dataset.train)

    paper = {
        "learning_rate": Derived(
            ", ".join(f"{rate:g} for {name}" for name, rate in rates.items()),
            lambda dataset, chosen: rates.get(chosen.get("optimizer"), sgd_rate),
        ),
        "weight_decay": Derived(
            "0.0005 for sgd and adam, 0.05 for adamw and muon",
            lambda dataset, chosen: 0.05 if chosen.get("optimizer") in DECOUPLED else 5e-4,
        ),
    }
    quick = paper | {
        "schedule": "cosine",
        "batch_size": batch_size,
        "epochs": Derived(
            f"{digits:,} images of digits, {others:,} of other datasets",
            lambda dataset, chosen: quick_epochs(dataset),
        ),
        "evaluate_every": Derived(
            f"1/{evaluations} of the preset's epochs",
            lambda dataset, chosen: quick_epochs(dataset) / evaluations,
        ),
    }
    return {"quick": quick, "paper": paper}


def build(
    model: nn.Module,
    optimizer: OptimizerConfig,
    length: Length,
    weight_decay: float,
    dataset: Dataset,
) -> tuple[Supervised, Length]:
    """A classifier with the augmentation of He et al. and the configured optimizer."""
    examples = len(dataset.train)
    transform, schedule = make_optimizer(
        optimizer, length.steps(examples), length.steps_per_epoch(examples), weight_decay
    )
    augment = random_crop_and_flip(flip=dataset.mirror_symmetric)
    return classification(model, dataset, transform, schedule, augment=augment), length
