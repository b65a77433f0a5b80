"""What the training commands for CIFAR-10 share: presets, augmentation, optimizer."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import numpy as np

from experiments.cli.flags import Derived
from experiments.data.dataset import Dataset
from experiments.system.errors import ConfigError
from experiments.tasks.augmentation import cutout, mixup, one_after_another, random_crop_and_flip
from experiments.tasks.supervised import Augment, Supervised, classification
from experiments.training.config import DECOUPLED, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, setting

DATASETS = ("auto", "digits", "cifar10", "mnist", "fashion_mnist")


@dataclasses.dataclass(frozen=True)
class AugmentationConfig(Config):
    """Augmentation beside the crops and flips of He et al.; off unless it is asked for."""

    cutout: int = setting(
        0, "Side of the square that is covered in each training image, in pixels; 0: none.",
        minimum=0,
    )  # fmt: skip
    mixup: float = setting(
        0.0,
        "Training images are mixed in pairs, with shares from Beta(mixup, mixup); 0: not.",
        minimum=0.0,
    )

    def used(self) -> set[str]:
        # Recorded only where it is on, so studies from before keep their identity.
        return {name for name in ("cutout", "mixup") if getattr(self, name) != 0}


def presets(
    sgd_rate: float, digits: int, others: int, batch_size: int = 32, evaluations: int = 5
) -> dict[str, dict[str, Any]]:
    """The presets quick and paper.

    paper is section 4 of Channel-directed gradients, after Osher et al.: the learning rate is
    divided by 10 every 40 epochs. The paper does not say how many there are; the code of Osher et
    al. runs 200. Theirs has Nesterov's momentum, begins it anew at each division, and prints the
    best test accuracy over epochs; ours has none of these (docs/deviations.md). quick is for a few
    minutes of two cores: small batches and a short cosine.

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
    augmentation: AugmentationConfig,
) -> tuple[Supervised, Length]:
    """A classifier with the augmentation of He et al. and what is configured beside it."""
    examples = len(dataset.train)
    transform, schedule = make_optimizer(
        optimizer, length.steps(examples), length.steps_per_epoch(examples), weight_decay
    )
    augment = one_after_another(
        random_crop_and_flip(flip=dataset.mirror_symmetric), *_others(augmentation, dataset)
    )
    return classification(model, dataset, transform, schedule, augment=augment), length


def _others(config: AugmentationConfig, dataset: Dataset) -> list[Augment]:
    size = min(dataset.example_shape[:2])
    if config.cutout > size:
        raise ConfigError("cutout", config.cutout, f"0 to {size}, the size of the images")
    chosen = []
    if config.cutout:
        mean, _ = dataset.train.channel_statistics
        chosen.append(cutout(config.cutout, np.rint(255 * mean).astype(np.uint8)))
    if config.mixup:
        chosen.append(mixup(config.mixup, dataset.num_classes))
    return chosen
