"""The settings that every experiment is composed of: metric, optimizer, length."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import channel_grad
from experiments.system.errors import ConfigError
from experiments.training import controls
from experiments.training.settings import Config, composed, setting

METRICS = {
    **channel_grad.METRICS,
    "centralization": controls.Centralization,
    "random_signs": controls.RandomSigns,
    "learned": controls.Learned,
}
DIRECTIONS = ("output", "input", "raster")
LAYERS = ("conv", "all")
OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
METRIC_PLACES = ("before", "after")
DECOUPLED = ("adamw", "muon")  # weight decay is no part of the gradient
SCHEDULES = ("step", "cosine", "linear")
PRECISIONS = ("float32", "bfloat16")
MOST_STEPS = 2**31 - 1  # steps are counted in 32 bits on the device

# Ranges of --random_search, for the metrics that have these numbers.
_SEARCHED = {"lam": (1e-2, 1e2), "sigma": (1e-2, 1e2)}


class _Metric(Config):
    """The metric that the gradient of the loss is taken under, and where it acts.

    Its fields are `name`, `direction`, `layers`, and every number and choice of the metrics in
    `channel_grad.METRICS`, under their names there; those of other metrics than `name` are not
    used. A new metric in that table is a new choice here, with its flags.

    Raises:
      ConfigError: naming the setting, what came and what is accepted.
    """

    def __post_init__(self):
        super().__post_init__()
        self.metric()

    def metric(self) -> channel_grad.Metric | controls.Control:
        """The metric with its numbers, or what stands in its place."""
        names = [field.name for field in dataclasses.fields(METRICS[self.name])]
        try:
            return METRICS[self.name](**{name: getattr(self, name) for name in names})
        except ValueError as error:
            found = re.fullmatch(r"(\w+): got (.*); accepted: (.*)", str(error), re.DOTALL)
            if found is None:
                raise
            raise ConfigError(*found.groups()) from error

    def used(self) -> set[str]:
        where = {"direction", "layers"}
        if self.least_channels > 1:  # Studies from before this setting keep their identity.
            where |= {"least_channels"}
        if self.name == "l2":
            where = set()
        elif self.name == "centralization":  # always of each output channel
            where = {"layers"}
        fields = METRICS[self.name] if self.name in METRICS else METRICS["l2"]
        return {"name"} | where | {field.name for field in dataclasses.fields(fields)}


def _bound(metadata: Mapping[str, Any]) -> float:
    return metadata.get("minimum", metadata.get("above", -math.inf))


def _metric_fields() -> list[tuple[str, type, Any]]:
    """(name, type, field) of each setting of `MetricConfig`."""
    names: dict[str, list[tuple[str, dataclasses.Field]]] = {}
    for metric, kind in METRICS.items():
        for field in dataclasses.fields(kind):
            names.setdefault(field.name, []).append((metric, field))
    fields = [
        (
            "name",
            str,
            setting(
                "l2",
                "Metric to take the gradient under.",
                choices=tuple(METRICS),
                flag="metric",
            ),
        )
    ]
    for name, found in names.items():
        default = found[0][1].default
        # Metrics that share a name may accept different values; the metric itself checks them. The
        # least of their bounds is checked for a metric that is not used, too.
        least = min((field.metadata for _, field in found), key=_bound)
        bound = {kind: least[kind] for kind in ("minimum", "above") if kind in least}
        texts = [f"{metric}: {field.metadata['help']}" for metric, field in found]
        choices = found[0][1].metadata.get("choices")
        text = " ".join(texts)
        field = setting(default, text, choices=choices, search=_SEARCHED.get(name), **bound)
        fields.append((name, type(default), field))
    fields += [
        (
            "direction",
            str,
            setting(
                "output",
                "Axis along which the metric is smooth: output or input channels, or the whole "
                "tensor as one line (raster).",
                choices=DIRECTIONS,
            ),
        ),
        (
            "layers",
            str,
            setting(
                "conv",
                "Layers that the metric acts in: convolutions, or dense layers too (all).",
                choices=LAYERS,
            ),
        ),
        (
            "least_channels",
            int,
            setting(
                1,
                "Channels along the direction below which a layer is left alone; of --direction="
                "raster, entries of the kernel.",
                minimum=1,
            ),
        ),
    ]
    return fields


MetricConfig = dataclasses.make_dataclass(
    "MetricConfig",
    _metric_fields(),
    bases=(_Metric,),
    frozen=True,
    namespace={"__doc__": _Metric.__doc__},
)


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
        "raises it over the first tenth of training and lowers it to zero; linear keeps it for the "
        "first half of training and lowers it to zero in the second.",
        choices=SCHEDULES,
    )
    decay_epochs: float = setting(40.0, "See --schedule=step.", above=0.0)
    decay_factor: float = setting(10.0, "See --schedule=step.", above=0.0)
    match_norm: bool = setting(
        False,
        "Rescale the metric's gradient, kernel by kernel, to the norm of the plain gradient: a "
        "control that takes the metric's gain away and leaves its direction.",
    )
    metric_place: str = setting(
        "before",
        "Where the metric acts: on the gradient, before weight decay and the optimizer's moments, "
        "or on the update, after them (sgd and adam).",
        choices=METRIC_PLACES,
    )
    metric: MetricConfig = composed(MetricConfig)

    def __post_init__(self):
        super().__post_init__()
        if "metric_place" in self.used() and self.name in DECOUPLED:
            # Its weight decay is part of the update.
            raise ConfigError("metric_place", "'after'", f"before with --optimizer={self.name}")

    def used(self) -> set[str]:
        used = {"name", "learning_rate", "schedule", "metric"}
        if self.metric_place != "before" and self.metric.name != "l2":
            used |= {"metric_place"}
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
    epochs: float = setting(200.0, "Length of training; may be a fraction.", above=0.0)
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
