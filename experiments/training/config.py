"""What a training run is: every setting that its result depends on, checked when it is made."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from experiments.system.errors import UserError

METRICS = ("l2", "reweighted_l2", "sobolev", "laplacian")
DIRECTIONS = ("output", "input", "raster")
LAYERS = ("conv", "all")
FORMS = ("code", "equation")
DISCRETIZATIONS = ("exact", "riemann", "listing")
OPTIMIZERS = ("sgd", "adam")
SCHEDULES = ("step", "cosine")
PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The settings of one run, all of its trials included but for their seeds.

    Each field is the flag of the same name; a UserError names the flag and what it accepts.

    Attributes:
      dataset: name of the dataset that was loaded, never "auto".
      model: what is trained, for the record.
      metric: under which the gradient of the loss is taken.
      lam, l2_weight, sigma: the metric's numbers; those that a metric lacks are ignored.
      form: of reweighted_l2. discretization: of sobolev.
      direction, layers: along which axis, and in which layers, the metric acts.
      optimizer: "sgd" (with momentum) or "adam".
      learning_rate: at the start (at the end of the warm-up for "cosine").
      schedule: "step" divides by decay_factor every decay_epochs; "cosine" rises over the first
        tenth of training and falls to zero.
      momentum_step: added to the momentum after each epoch, up to momentum_max.
      weight_decay: added to the gradient as weight_decay * parameter, after the metric.
      batch_size: examples per step; an epoch drops the incomplete batch at its end.
      epochs: may be a fraction.
      evaluate_every: epochs between evaluations; may be a fraction.
      precision: what convolutions compute in.
    """

    dataset: str
    model: str
    metric: str = "l2"
    lam: float = 1.0
    l2_weight: float = 1.0
    sigma: float = 1.0
    form: str = "code"
    discretization: str = "exact"
    direction: str = "output"
    layers: str = "conv"
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    momentum_step: float = 0.0
    momentum_max: float = 0.9
    schedule: str = "step"
    decay_epochs: float = 40.0
    decay_factor: float = 10.0
    weight_decay: float = 5e-4
    batch_size: int = 128
    epochs: float = 160.0
    evaluate_every: float = 1.0
    precision: str = "float32"

    def __post_init__(self):
        one_of("metric", self.metric, METRICS)
        one_of("direction", self.direction, DIRECTIONS)
        one_of("layers", self.layers, LAYERS)
        one_of("form", self.form, FORMS)
        one_of("discretization", self.discretization, DISCRETIZATIONS)
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("precision", self.precision, PRECISIONS)
        at_least("l2_weight", self.l2_weight, 0.0)
        at_least("sigma", self.sigma, 0.0)
        if self.metric == "sobolev" or (self.metric, self.form) == ("reweighted_l2", "equation"):
            above("lam", self.lam, 0.0)
        at_least("lam", self.lam, 0.0)
        above("learning_rate", self.learning_rate, 0.0)
        at_least("weight_decay", self.weight_decay, 0.0)
        if not 0.0 <= self.momentum < 1.0:
            raise UserError(f"--momentum: got {self.momentum}; accepted is 0 <= momentum < 1")
        at_least("momentum_step", self.momentum_step, 0.0)
        if not 0.0 <= self.momentum_max < 1.0:
            raise UserError(f"--momentum_max: got {self.momentum_max}; accepted is 0 <= it < 1")
        above("decay_epochs", self.decay_epochs, 0.0)
        above("decay_factor", self.decay_factor, 0.0)
        at_least("batch_size", self.batch_size, 1)
        above("epochs", self.epochs, 0.0)
        above("evaluate_every", self.evaluate_every, 0.0)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def steps_per_epoch(self, examples: int) -> int:
        """Steps in an epoch over so many examples; UserError if not even one batch fits."""
        if self.batch_size > examples:
            raise UserError(
                f"--batch_size: got {self.batch_size}, more than the {examples} training examples "
                f"of {self.dataset}; accepted is 1 to {examples}"
            )
        return examples // self.batch_size

    def total_steps(self, examples: int) -> int:
        return max(1, round(self.epochs * self.steps_per_epoch(examples)))

    def steps_between_evaluations(self, examples: int) -> int:
        return max(1, math.ceil(self.evaluate_every * self.steps_per_epoch(examples) - 1e-6))


def one_of(flag: str, value: str, accepted: tuple[str, ...]) -> None:
    if value not in accepted:
        raise UserError(f"--{flag}: got {value!r}; accepted are {', '.join(accepted)}")


def at_least(flag: str, value: float, low: float) -> None:
    if not (math.isfinite(value) and value >= low):
        kind = "an integer" if isinstance(value, int) else "a finite number"
        raise UserError(f"--{flag}: got {value}; accepted is {kind} >= {low:g}")


def above(flag: str, value: float, low: float) -> None:
    if not (math.isfinite(value) and value > low):
        raise UserError(f"--{flag}: got {value}; accepted is a finite number > {low:g}")
