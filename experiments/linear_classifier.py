"""A linear classifier with the losses, penalties and optimizers of the lectures.

    python -m experiments.linear_classifier --loss=svm --penalty=l1 --optimizer=adam --preset=quick
    python -m experiments.linear_classifier --sweep=optimizer:gd,adam,lbfgs,newton
    python -m experiments.linear_classifier --dataset=cifar10 --loss=svm --optimizer=random_search

The objective is mean_i L_i(W x_i + b, y_i) + strength R(W); biases are not penalised. Random
search, gd, lbfgs and newton take all examples at each step, so that an epoch is a step of theirs.
Under gd and sgd an L1 or elastic net penalty is a proximal step, which makes weights exactly zero;
the other optimizers take its subgradient, as the lectures do, and leave weights near zero.

Besides the figures of every training command the workdir gets templates.png (the weights of each
class as an image), valley.png (the loss over two weights with the paths of all optimizers),
cliff.png (an overconfident classifier with and without L2) and weights.json (norms and sparsity of
the weights).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from absl import flags

from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data import digits
from experiments.data.dataset import Dataset, Split
from experiments.figures import lectures as figures
from experiments.figures.files import save
from experiments.lectures import cliff
from experiments.lectures.valley import valley
from experiments.models.linear import Linear
from experiments.system.errors import ConfigError
from experiments.system.files import write_json
from experiments.tasks.losses import weston_watkins
from experiments.tasks.objective import Objective
from experiments.tasks.supervised import classification
from experiments.training.checkpoints import read_latest
from experiments.training.config import Length
from experiments.training.full_batch import newton, proximal, random_search
from experiments.training.settings import Config, setting
from optflow_jax import penalties

DIGITS_SIZE = 8  # as scanned
GREY = ("digits", "mnist", "fashion_mnist")

LOSSES = {"softmax": optax.softmax_cross_entropy_with_integer_labels, "svm": weston_watkins}
PENALTIES = ("none", "l1", "l2", "elastic_net", "huber")
KINKED = ("l1", "elastic_net")
# By optimizer: its learning rate; None where it needs none.
RATES = {
    "random_search": None, "gd": 0.1, "sgd": 0.01, "momentum": 0.003, "nesterov": 0.003,
    "adagrad": 0.03, "rmsprop": 0.001, "adam": 0.002, "adamw": 0.002, "lbfgs": None,
    "newton": None,
}  # fmt: skip
OPTIMIZERS = tuple(RATES)
FULL_BATCH = ("random_search", "gd", "lbfgs", "newton")
PROXIMAL = ("gd", "sgd")
SCHEDULES = ("constant", "cosine")
NEWTON_DAMPING = 1e-4  # softmax scores have directions that change no probability


@dataclasses.dataclass(frozen=True)
class LinearConfig(Config):
    """Loss, penalty, optimizer and length.

    Attributes:
      image_size: height and width of the images, for the record.
    """

    loss: str = setting("softmax", "Loss of an example.", choices=tuple(LOSSES))
    penalty: str = setting("none", "Penalty on the weights.", choices=PENALTIES)
    strength: float = setting(1e-3, "Weight of --penalty.", minimum=0.0, search=(1e-6, 1.0))
    l1_ratio: float = setting(
        0.5, "Share of L1 in the elastic net, below 1.", minimum=0.0, below=1.0
    )
    delta: float = setting(0.1, "Where the Huber penalty becomes linear.", above=0.0)
    optimizer: str = setting("adam", "Optimizer.", choices=OPTIMIZERS)
    learning_rate: float = setting(
        2e-3, "Learning rate at the start.", above=0.0, search=(0.1, 10.0), search_relative=True
    )
    momentum: float = setting(0.9, "Of momentum and nesterov.", minimum=0.0, below=1.0)
    weight_decay: float = setting(
        0.01, "Decoupled weight decay of adamw.", minimum=0.0, search=(1e-5, 1.0)
    )
    schedule: str = setting(
        "cosine", "Learning rate over time: constant, or lowered to zero.", choices=SCHEDULES
    )
    scale: float = setting(
        0.01,
        "Standard deviation of the initial weights, and of those that random_search draws.",
        above=0.0,
    )
    batch_size: int = setting(
        100, f"Examples per step; all of them for {', '.join(FULL_BATCH)}.", minimum=1
    )
    epochs: float = setting(30.0, "Length of training; may be a fraction.", above=0.0)
    evaluate_every: float = setting(
        3.0, "Epochs between evaluations; may be a fraction.", above=0.0
    )
    model: str = "linear"
    image_size: int = 32

    def __post_init__(self):
        super().__post_init__()
        if self.optimizer == "newton" and self.loss == "svm":
            accepted = "another optimizer with --loss=svm, whose Hessian is zero"
            raise ConfigError("optimizer", "newton", accepted)
        if self.optimizer == "newton" and self.penalty in KINKED:
            accepted = f"another optimizer with --penalty={self.penalty}, which has a kink"
            raise ConfigError("optimizer", "newton", accepted)

    def used(self) -> set[str]:
        unused = {"l1_ratio", "delta", "momentum", "weight_decay"}
        unused -= {
            "elastic_net": {"l1_ratio"}, "huber": {"delta"}
        }.get(self.penalty, set())  # fmt: skip
        unused -= {
            "momentum": {"momentum"}, "nesterov": {"momentum"}, "adamw": {"weight_decay"}
        }.get(self.optimizer, set())  # fmt: skip
        if self.penalty == "none":
            unused |= {"strength"}
        if self.optimizer in FULL_BATCH:
            unused |= {"batch_size"}
        if RATES.get(self.optimizer) is None:
            unused |= {"learning_rate", "schedule"}
        return super().used() - unused

    @property
    def takes_proximal_steps(self) -> bool:
        """Whether the penalty is a step of its own and no part of the gradient."""
        return self.penalty in KINKED and self.optimizer in PROXIMAL


def _quick_epochs(dataset: Dataset, chosen: dict[str, Any]) -> float:
    steps = {"random_search": 1000.0, "gd": 300.0, "lbfgs": 100.0, "newton": 15.0}
    return steps.get(chosen.get("optimizer", "adam"), 43_000 / len(dataset.train))


QUICK = {
    "learning_rate": Derived(
        ", ".join(f"{rate:g} for {name}" for name, rate in RATES.items() if rate),
        lambda dataset, chosen: RATES[chosen.get("optimizer", "adam")] or 1.0,
    ),
    "epochs": Derived(
        "43,000 examples; 1000 epochs of random_search, 300 of gd, 100 of lbfgs, 15 of newton",
        _quick_epochs,
    ),
    "evaluate_every": Derived(
        "a tenth of the preset's epochs",
        lambda dataset, chosen: _quick_epochs(dataset, chosen) / 10,
    ),
}


def build(config: LinearConfig, dataset: Dataset) -> tuple[Objective, Length]:
    """The classifier, its objective and the optimizer."""
    examples = len(dataset.train)
    size = examples if config.optimizer in FULL_BATCH else config.batch_size
    length = Length(size, config.epochs, config.evaluate_every)
    optimizer, schedule = make_optimizer(config, length.steps(examples))
    penalty = None
    if config.penalty != "none":

        def penalty(params):
            return config.strength * penalties.tree_penalty(penalty_of(config), params)

    plain = classification(
        Linear(dataset.num_classes, config.scale),
        dataset,
        optimizer,
        schedule,
        loss=LOSSES[config.loss],
        penalty=penalty,
    )
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return Objective(**fields, penalty_in_gradient=not config.takes_proximal_steps), length


def penalty_of(config: LinearConfig) -> Callable[[jax.Array], jax.Array]:
    """The penalty as a function of an array."""
    return {
        "l1": penalties.l1,
        "l2": penalties.l2,
        "elastic_net": partial(penalties.elastic_net, l1_ratio=config.l1_ratio),
        "huber": partial(penalties.huber, delta=config.delta),
    }[config.penalty]


def make_optimizer(
    config: LinearConfig, steps: int
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer and its learning rate over `steps` steps."""
    if RATES[config.optimizer] is None:
        made = {
            "random_search": random_search(config.scale),
            "lbfgs": optax.lbfgs(),
            "newton": newton(NEWTON_DAMPING),
        }
        return made[config.optimizer], optax.constant_schedule(1.0)
    schedule = optax.constant_schedule(config.learning_rate)
    if config.schedule == "cosine":
        schedule = optax.cosine_decay_schedule(config.learning_rate, max(1, steps))
    makers = {
        "gd": optax.sgd,
        "sgd": optax.sgd,
        "momentum": partial(optax.sgd, momentum=config.momentum),
        "nesterov": partial(optax.sgd, momentum=config.momentum, nesterov=True),
        "adagrad": optax.adagrad,
        "rmsprop": optax.rmsprop,
        "adam": optax.adam,
        "adamw": partial(optax.adamw, weight_decay=config.weight_decay),
    }
    optimizer = makers[config.optimizer](schedule)
    if not config.takes_proximal_steps:
        return optimizer, schedule
    ratio = 1.0 if config.penalty == "l1" else config.l1_ratio

    def prox(params, rate):
        def of_leaf(path, leaf):
            if path[-1].key != "kernel":
                return leaf
            return penalties.prox_elastic_net(leaf, rate * config.strength, ratio)

        return jax.tree_util.tree_map_with_path(of_leaf, params)

    return optax.chain(optimizer, proximal(prox, schedule)), schedule


def as_scanned(dataset: Dataset, values: flags.FlagValues) -> Dataset:
    """One channel of grey images, and digits in the 8 x 8 pixels that they were scanned in.

    Copies of a feature tell a linear classifier nothing, and share its weight between them.
    """
    del values
    if dataset.name == "digits":
        dataset = digits.load(size=DIGITS_SIZE)
    if dataset.name not in GREY:
        return dataset
    grey = {name: Split(x.examples[..., :1], x.labels) for name, x in dataset.splits().items()}
    return dataclasses.replace(dataset, **grey)


def draw(path: pathlib.Path, summary: dict[str, Any]) -> None:
    """Writes templates.png, valley.png, cliff.png and weights.json."""
    about = []
    for run in summary["runs"]:
        for trial in run["trials"]:
            if "error" in trial:
                continue
            state = read_latest(path / "checkpoints" / run["name"] / f"seed_{trial['seed']}")
            kernel = np.asarray(state["state"]["params"]["Dense_0"]["kernel"])
            about.append({"run": run["name"], "seed": trial["seed"], **sparsity(kernel)})
            if len(about) == 1:
                settings = run["settings"]
                names = tuple(map(str, range(kernel.shape[1])))
                title = ", ".join(str(settings[name]) for name in ("loss", "penalty", "optimizer"))
                title += f": {100 * about[0]['zeros']:.0f} % of the weights are zero"
                drawn = figures.templates(kernel, settings["image_size"], names, title)
                save(drawn, path / "templates.png")
    write_json(path / "weights.json", about)
    save(figures.valley(valley()), path / "valley.png")
    classifiers = {
        f"$\\lambda$ = {strength:g}": cliff.fit(strength) for strength in (0.0, 1e-3, 1e-2, 0.1)
    }
    save(figures.cliff(classifiers), path / "cliff.png")


def sparsity(kernel: np.ndarray) -> dict[str, float]:
    """The share of weights that are zero and that are below 1 % of the largest, and the norms."""
    size = np.abs(kernel)
    return {
        "zeros": float(np.mean(size == 0)),
        "below_1_percent": float(np.mean(size < 0.01 * size.max())),
        "l1": float(size.sum()),
        "l2": float(np.sum(size**2)),
    }


EXPERIMENT = Experiment(
    name="linear_classifier",
    config=LinearConfig,
    presets={"quick": QUICK},
    datasets=("auto", "digits", "mnist", "fashion_mnist", "cifar10"),
    preferred="cifar10",
    build=build,
    limit=as_scanned,
    recorded=lambda dataset: {"image_size": dataset.example_shape[0]},
    draw=draw,
)

if __name__ == "__main__":
    EXPERIMENT.run()
