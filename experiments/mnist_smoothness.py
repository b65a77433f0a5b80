"""Accuracy against the smoothness lambda of the metrics (Channel-directed gradients, figure 6).

    python -m experiments.mnist_smoothness --preset=quick
    python -m experiments.mnist_smoothness --preset=cpu --dataset=fashion_mnist
    python -m experiments.mnist_smoothness --preset=paper --dataset=mnist

As in the paper the network is TRAINED ON THE TEST IMAGES AND TESTED ON THE TRAINING IMAGES, which
makes generalization harder: 10,000 for training and 60,000 for testing of MNIST and Fashion-MNIST,
360 and 1,437 of scikit-learn's digits. It trains plain SGD, and both metrics at each lambda:
--metric=l2,reweighted_l2,sobolev --sweep=lam:... --grid, with --trials trials of each. These flags
have defaults here: lam 1, 5, 20 and 3 trials (quick), lam 1, 2, 5, 10, 20 and 5 trials (cpu),
lam 0.5, 1, 2, 5, 10, 15, 20 and 5 trials (paper). The figure is smoothness.png, in the workdir.
"""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from absl import flags

from experiments.cli.training import Experiment
from experiments.data import digits
from experiments.data.dataset import Dataset
from experiments.figures import smoothness
from experiments.models.smallcnn import SmallCNN
from experiments.tasks.supervised import Supervised, classification
from experiments.training.config import PRECISIONS, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, composed, setting

DIGITS_SIZE = 16  # pixels; the scans have 8


@dataclasses.dataclass(frozen=True)
class SmoothnessConfig(Config):
    """The network of two convolutions, its optimizer and the length of its training."""

    weight_decay: float = setting(
        5e-4,
        "Added to the gradient as weight_decay * weights; see --optimizer.",
        minimum=0.0,
        search=(1e-5, 1e-2),
    )
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    model: str = "smallcnn"


# The paper names batch size and epochs; the learning rate and its schedule are ours.
PAPER = {"learning_rate": 0.01, "decay_epochs": 40.0, "batch_size": 100, "epochs": 100.0}
CPU = PAPER | {"schedule": "cosine", "epochs": 5.0, "evaluate_every": 5.0}
QUICK = PAPER | {
    "schedule": "cosine", "batch_size": 20, "epochs": 10.0, "evaluate_every": 10.0,
}  # fmt: skip


# Plain SGD, and every metric at every lambda.
EACH = {"metric": ["l2", "reweighted_l2", "sobolev"], "grid": True}


def swapped(dataset: Dataset, values: flags.FlagValues) -> Dataset:
    """Training and test images in each other's place; digits at 16 x 16 pixels."""
    del values
    if dataset.name == "digits":
        dataset = digits.load(size=DIGITS_SIZE)
    return dataclasses.replace(
        dataset,
        train=dataset.test,
        test=dataset.train,
        validation=None,
        provenance=f"{dataset.provenance}; trained on the test images, tested on the training ones",
    )


def build(config: SmoothnessConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, without augmentation, and the optimizer."""
    examples, length = len(dataset.train), config.length
    optimizer, schedule = make_optimizer(
        config.optimizer,
        length.steps(examples),
        length.steps_per_epoch(examples),
        config.weight_decay,
    )
    model = SmallCNN(dataset.num_classes, dtype=jnp.dtype(config.precision))
    return classification(model, dataset, optimizer, schedule), length


EXPERIMENT = Experiment(
    name="mnist_smoothness",
    config=SmoothnessConfig,
    presets={"quick": QUICK, "cpu": CPU, "paper": PAPER},
    datasets=("auto", "digits", "mnist", "fashion_mnist"),
    preferred="mnist",
    build=build,
    limit=swapped,
    draw=smoothness.draw,
    defaults={
        "quick": {**EACH, "sweep": ["lam:1,5,20"], "trials": 3},
        "cpu": {**EACH, "sweep": ["lam:1,2,5,10,20"], "trials": 5},
        "paper": {**EACH, "sweep": ["lam:0.5,1,2,5,10,15,20"], "trials": 5},
    },
)

if __name__ == "__main__":
    EXPERIMENT.run()
