"""The settings that every experiment is composed of: metric, optimizer, length."""

from __future__ import annotations

import dataclasses
import math

from experiments.system.errors import ConfigError
from experiments.training.settings import Config, above, composed, one_of, setting

METRICS = ("l2", "reweighted_l2", "sobolev", "laplacian", "centralization")
DIRECTIONS = ("output", "input", "raster")
LAYERS = ("conv", "all")
OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
DECOUPLED = ("adamw", "muon")  # weight decay is no part of the gradient
SCHEDULES = ("step", "cosine")
PRECISIONS = ("float32", "bfloat16")
MOST_STEPS = 2**31 - 1  # steps are counted in 32 bits on the device

_USED_BY = {
    "l2": set(),
    "reweighted_l2": {"lam", "form"},
    "sobolev": {"lam", "l2_weight", "discretization"},
    "laplacian": {"sigma"},
    "centralization": set(),
}


@dataclasses.dataclass(frozen=True)
class MetricConfig(Config):
    """The metric that the gradient of the loss is taken under, and where it acts."""

    name: str = setting("l2", "Metric to take the gradient under.", choices=METRICS, flag="metric")
    lam: float = setting(
        1.0,
        "lambda of the metrics reweighted_l2 and sobolev.",
        minimum=0.0,
        search=(1e-2, 1e2),
    )
    l2_weight: float = setting(
        1.0, "Weight of the L2 gradient added by the metric sobolev.", minimum=0.0
    )
    sigma: float = setting(1.0, "sigma of the metric laplacian.", minimum=0.0, search=(1e-2, 1e2))
    form: str = setting("code", "Form of reweighted_l2.", choices=("code", "equation"))
    discretization: str = setting(
        "exact", "Discretization of sobolev.", choices=("exact", "riemann", "listing")
    )
    direction: str = setting(
        "output",
        "Axis along which the metric is smooth: output or input channels, or the whole tensor as "
        "one line (raster).",
        choices=DIRECTIONS,
    )
    layers: str = setting(
        "conv", "Layers that the metric acts in: convolutions, or dense layers too.", choices=LAYERS
    )

    def __post_init__(self):
        super().__post_init__()
        if self.name == "sobolev" or (self.name, self.form) == ("reweighted_l2", "equation"):
            above("lam", self.lam, 0.0)

    def used(self) -> set[str]:
        where = {"direction", "layers"}
        if self.name == "l2":
            where = set()
        elif self.name == "centralization":  # always of each output channel
            where = {"layers"}
        return {"name"} | where | _USED_BY.get(self.name, set())


@dataclasses.dataclass(frozen=True)
class OptimizerConfig(Config):
    """An optimizer with a metric in front, and its learning rate over time."""

    name: str = setting(
        "sgd",
        "Optimizer. Weight decay is part of the gradient for sgd and adam, and decoupled "
        "(learning_rate * weight_decay * weights) for adamw and muon; muon moves the kernels of "
        "convolutions, and adamw (with Nesterov momentum) everything else.",
        choices=OPTIMIZERS,
        flag="optimizer",
    )
    learning_rate: float = setting(
        0.1,
        "Learning rate at the start (for cosine: at the end of the warm-up).",
        above=0.0,
        search=(0.1, 10.0),
        search_relative=True,
    )
    momentum: float = setting(0.9, "Momentum of sgd.", minimum=0.0, below=1.0)
    momentum_step: float = setting(
        0.0, "Added to the momentum of sgd after each epoch, up to 0.9.", minimum=0.0
    )
    momentum_max: float = setting(
        0.9, "The momentum that momentum_step rises to.", minimum=0.0, below=1.0, flag=""
    )
    schedule: str = setting(
        "step",
        "Learning rate over time: step divides it by --decay_factor every --decay_epochs; cosine "
        "raises it over the first tenth of training and lowers it to zero.",
        choices=SCHEDULES,
    )
    decay_epochs: float = setting(40.0, "See --schedule=step.", above=0.0)
    decay_factor: float = setting(10.0, "See --schedule=step.", above=0.0)
    match_norm: bool = setting(
        False,
        "Rescale the metric's gradient, kernel by kernel, to the norm of the plain gradient: a "
        "control that takes the metric's gain away and leaves its direction.",
    )
    metric: MetricConfig = composed(MetricConfig)

    def used(self) -> set[str]:
        used = {"name", "learning_rate", "schedule", "metric"}
        if self.match_norm and self.metric.name != "l2":
            used |= {"match_norm"}
        if self.name == "sgd":
            used |= {"momentum", "momentum_step"}
            used |= {"momentum_max"} if self.momentum_step else set()
        if self.schedule == "step":
            used |= {"decay_epochs", "decay_factor"}
        return used


@dataclasses.dataclass(frozen=True)
class Length(Config):
    """How many steps are made, of how many examples, and when they are evaluated.

    An epoch drops the incomplete batch at its end.
    """

    batch_size: int = setting(128, "Examples per step.", minimum=1)
    epochs: float = setting(160.0, "Length of training; may be a fraction.", above=0.0)
    evaluate_every: float = setting(
        1.0, "Epochs between evaluations; may be a fraction.", above=0.0
    )

    def steps_per_epoch(self, examples: int) -> int:
        """Steps in an epoch over `examples` examples.

        Raises:
          ConfigError: not even one batch fits.
        """
        if self.batch_size > examples:
            raise ConfigError(
                "batch_size", self.batch_size, f"1 to {examples}, the number of training examples"
            )
        return examples // self.batch_size

    def steps(self, examples: int) -> int:
        """Steps in all.

        Raises:
          ConfigError: not even one batch fits, or there are more than 2^31 - 1 steps.
        """
        per_epoch = self.steps_per_epoch(examples)
        steps = self.epochs * per_epoch
        if steps > MOST_STEPS:
            raise ConfigError("epochs", self.epochs, f"at most {MOST_STEPS / per_epoch:.6g}")
        return max(1, round(steps))

    def steps_between_evaluations(self, examples: int) -> int:
        steps = self.evaluate_every * self.steps_per_epoch(examples)
        # A tiny excess over an integer is rounding, not another step.
        return max(1, math.ceil(min(steps, MOST_STEPS) - 1e-6))


__all__ = ["Length", "MetricConfig", "OptimizerConfig", "one_of"]
