"""From a configuration to an optax optimizer with its metric in front."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
import optax.contrib

import channel_grad
from experiments.system.errors import ConfigError
from experiments.training import controls
from experiments.training.config import DECOUPLED, MOST_STEPS, MetricConfig, OptimizerConfig

# The part of training over which the "cosine" schedule rises.
WARMUP = 0.1


def learning_rate(config: OptimizerConfig, steps: int, steps_per_epoch: int) -> optax.Schedule:
    """The learning rate at each step."""
    if config.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            init_value=0.0,
            peak_value=config.learning_rate,
            warmup_steps=max(1, round(WARMUP * steps)),
            decay_steps=max(2, steps),
        )
    if config.schedule == "linear":
        half = steps // 2
        return optax.linear_schedule(config.learning_rate, 0.0, max(1, steps - half), half)
    decay_steps = config.decay_epochs * steps_per_epoch
    if decay_steps > MOST_STEPS:
        accepted = f"at most {MOST_STEPS / steps_per_epoch:.6g}"
        raise ConfigError("decay_epochs", config.decay_epochs, accepted)
    return optax.exponential_decay(
        config.learning_rate,
        transition_steps=max(1, round(decay_steps)),
        decay_rate=1 / config.decay_factor,
        staircase=True,
    )


def metric_transform(
    config: MetricConfig, where: channel_grad.AxisSpec | None = None
) -> optax.GradientTransformation:
    """The gradient under the configuration's metric, direction and layers.

    Args:
      config: the settings.
      where: the axes that the metric acts along, in place of `axes` of direction and layers.
    """
    if config.name == "l2":
        return optax.identity()
    if config.name == "centralization":
        return controls.centralize(config.layers)
    where = axes(config.direction, config.layers) if where is None else where
    if config.least_channels > 1:
        where = where.at_least(config.least_channels)
    metric = config.metric()
    if isinstance(metric, channel_grad.Metric):
        return channel_grad.scale_by_metric(metric, axes=where)
    return metric.transformation(where)


def axes(direction: str, layers: str) -> channel_grad.AxisSpec:
    """The axis specification for --direction and --layers, for Flax Linen kernels."""
    if layers == "conv":
        presets = {
            "output": channel_grad.output_axes,
            "input": channel_grad.input_axes,
            "raster": channel_grad.raster,
        }
        return presets[direction]

    def every_kernel(path, leaf):
        if path[-1].key != "kernel":
            return None
        whole = (-1, -2, *range(leaf.ndim - 2))  # the order O, I, H, W
        return {"output": -1, "input": -2, "raster": whole}[direction]

    return channel_grad.AxisSpec(every_kernel)


def make_optimizer(
    config: OptimizerConfig,
    steps: int,
    steps_per_epoch: int,
    weight_decay: float = 0.0,
    where: channel_grad.AxisSpec | None = None,
    adam: Callable[[optax.Schedule], optax.GradientTransformation] = optax.adam,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """Metric, weight decay, optimizer, or with metric_place "after" the metric last; the schedule.

    Args:
      config: the settings.
      steps: steps of the whole training.
      steps_per_epoch: steps of an epoch.
      weight_decay: for sgd and adam `weight_decay * parameter` is added to the gradient, after the
        metric; for adamw and muon `learning_rate * weight_decay * parameter` is subtracted from the
        parameter.
      where: see `metric_transform`.
      adam: makes "adam" from its learning rate; another one has other betas.
    """
    schedule = learning_rate(config, steps, steps_per_epoch)
    metric = metric_transform(config.metric, where)
    if config.match_norm and config.metric.name != "l2":
        metric = controls.match_norm(metric)
    before = config.metric_place == "before" or config.metric.name == "l2"
    chain = [metric] if before else []
    if weight_decay and config.name not in DECOUPLED:
        chain.append(optax.add_decayed_weights(weight_decay))
    if config.name == "sgd":
        base = _sgd(config, schedule, steps_per_epoch)
    elif config.name == "adam":
        base = adam(schedule)
    elif config.name == "adamw":
        base = optax.adamw(schedule, weight_decay=weight_decay)
    else:
        base = _muon(schedule, weight_decay)
    # The learning rate is a number, so the metric of an update is that number times the metric of
    # what the moments make of the gradient.
    return optax.chain(*chain, base, *([] if before else [metric])), schedule


def _muon(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Muon for the kernels of convolutions; AdamW with Nesterov momentum for all other parameters.

    A kernel (height, width, input, output) is one matrix, from all that a filter sees to its output
    channel. Updates are scaled to the size of AdamW's (Liu et al., "Muon is Scalable for LLM
    Training", 2025, section 2.2), so that one learning rate serves both.
    """
    matrix = optax.contrib.MuonDimensionNumbers

    def dimensions(params):
        outputs = channel_grad.output_axes.resolve(params)

        def of(path, leaf):
            if outputs[path] is None:
                return None
            return matrix(reduction_axis=tuple(range(leaf.ndim - 1)), output_axis=leaf.ndim - 1)

        return jax.tree_util.tree_map_with_path(of, params)

    return optax.contrib.muon(
        schedule,
        weight_decay=weight_decay,
        adam_weight_decay=weight_decay,
        muon_weight_dimension_numbers=dimensions,
        consistent_rms=0.2,
    )


def _sgd(
    config: OptimizerConfig, schedule: optax.Schedule, steps_per_epoch: int
) -> optax.GradientTransformation:
    if not config.momentum_step:
        return optax.sgd(schedule, momentum=config.momentum or None)

    def momentum(step):
        risen = config.momentum + config.momentum_step * (step // steps_per_epoch)
        return jnp.minimum(risen, max(config.momentum, config.momentum_max))

    return optax.inject_hyperparams(optax.sgd)(learning_rate=schedule, momentum=momentum)
