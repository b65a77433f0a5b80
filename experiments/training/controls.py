"""Transformations of the gradient that channel-directed metrics are compared with.

They stand where a metric stands: first in the chain, on the gradient of the loss.
"""

from __future__ import annotations

import dataclasses
import zlib
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

import channel_grad


@dataclasses.dataclass(frozen=True)
class Centralization:
    """Gradient centralization: `f - mean(f)`, the mean of each output channel's own entries.

    The mean of a Flax kernel is over all axes but the last one, so that the gradient of every
    filter has the mean 0. `optax.centralize` takes the mean over all axes but the first: in a Flax
    kernel that is everything at one row of the filter, across output channels, and no filter is
    centralized.

    Source: Yong et al., "Gradient Centralization" (ECCV 2020), equation 1.
    """


def centralize(layers: str) -> optax.GradientTransformation:
    """`Centralization` of kernels.

    Args:
      layers: "conv" for the kernels of convolutions, "all" for those of dense layers too.

    Example:
      >>> tree = {"kernel": jnp.arange(6.0).reshape(1, 1, 3, 2)}
      >>> update, _ = centralize("conv").update(tree, optax.EmptyState())
      >>> update["kernel"][0, 0, :, 0].tolist()
      [-2.0, 0.0, 2.0]
    """
    spec = channel_grad.output_axes if layers == "conv" else channel_grad.all_kernels

    def update(updates: Any, params: Any) -> Any:
        del params
        outputs = spec.resolve(updates)

        def centralized(path, f):
            if outputs[path] is None:
                return f
            rest = tuple(axis for axis in range(f.ndim) if axis not in outputs[path])
            return f - jnp.mean(f, axis=rest, keepdims=True)

        return jax.tree_util.tree_map_with_path(centralized, updates)

    return optax.stateless(update)


class Control(Protocol):
    """What stands in the place of a metric."""

    def transformation(self, where: channel_grad.AxisSpec) -> optax.GradientTransformation:
        """The transformation along the axes of a specification."""
        ...


@dataclasses.dataclass(frozen=True)
class RandomSigns:
    """A placebo of the re-weighted L2 metric: `f + lam * s * mean(s * f)` with random signs s.

    It scales one direction along the axis by 1 + lam, as re-weighted L2 scales the mean. The signs
    are drawn once for each kernel, from its path: they do not change with the seed of a trial.
    """

    lam: float = dataclasses.field(
        default=1.0,
        metadata={"help": "Weight of the direction of random signs, > -1.", "above": -1.0},
    )

    def __post_init__(self) -> None:
        if not self.lam > -1:
            raise ValueError(f"lam: got {self.lam!r}; accepted: a finite number > -1")

    def transformation(self, where: channel_grad.AxisSpec) -> optax.GradientTransformation:
        """The transformation along the axes of a specification."""
        return random_signs(self.lam, where)


def random_signs(lam: float, where: channel_grad.AxisSpec) -> optax.GradientTransformation:
    """`RandomSigns` along the axes of a specification.

    Example:
      >>> transform = random_signs(1.0, channel_grad.AxisSpec(-1))
      >>> update, _ = transform.update(jnp.array([[1.0, 3.0]]), optax.EmptyState())
      >>> update.tolist() in ([[3.0, 5.0]], [[0.0, 4.0]])  # equal or opposite signs
      True
    """

    def update(updates: Any, params: Any) -> Any:
        del params
        axes = where.resolve(updates)

        def one(path, f):
            if axes[path] is None:
                return f
            shape = [n if axis in axes[path] else 1 for axis, n in enumerate(f.shape)]
            seed = zlib.crc32(jax.tree_util.keystr(path).encode())
            drawn = np.random.default_rng(seed).choice([-1.0, 1.0], shape)
            signs = jnp.asarray(drawn, f.dtype)
            return f + lam * signs * jnp.mean(signs * f, axis=axes[path], keepdims=True)

        return jax.tree_util.tree_map_with_path(one, updates)

    return optax.stateless(update)


@dataclasses.dataclass(frozen=True)
class Learned:
    """`channel_grad.scale_by_learned_metric`, as a choice beside the metrics."""

    root_power: float = dataclasses.field(
        default=0.5, metadata={"help": "Power of the inverse root.", "minimum": 0.0}
    )
    moment_decay: float = dataclasses.field(
        default=0.95, metadata={"help": "Decay of the gradients' second moment.", "minimum": 0.0}
    )
    root_damping: float = dataclasses.field(
        default=0.01,
        metadata={"help": "Added to the eigenvalues, whose mean is scaled to 1.", "above": 0.0},
    )
    root_every: int = dataclasses.field(
        default=20, metadata={"help": "Steps from one root to the next.", "minimum": 1}
    )

    def __post_init__(self) -> None:
        if not 0 <= self.moment_decay < 1:
            got = repr(self.moment_decay)
            raise ValueError(f"moment_decay: got {got}; accepted: a number >= 0 and < 1")

    def transformation(self, where: channel_grad.AxisSpec) -> optax.GradientTransformation:
        """The transformation along the axes of a specification."""
        return channel_grad.scale_by_learned_metric(
            self.root_power, self.moment_decay, self.root_damping, self.root_every, axes=where
        )


def match_norm(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    """What `transform` returns, each leaf rescaled to the norm of the leaf that came in.

    It keeps the direction that a metric gives and takes its gain away, so that a metric is compared
    at the effective learning rate of the plain gradient. A leaf that `transform` makes zero stays
    zero.

    Args:
      transform: from gradients to gradients of the same shapes.
    """

    def update(updates, state, params=None, **extra_args):
        changed, state = transform.update(updates, state, params, **extra_args)
        return jax.tree.map(_with_norm_of, updates, changed), state

    return optax.GradientTransformationExtraArgs(transform.init, update)


def _with_norm_of(f: jax.Array, g: jax.Array) -> jax.Array:
    """g times |f| / |g|; g itself where it is the zero vector."""
    if f is g:  # a leaf that the metric leaves alone
        return f
    # Norms relative to the largest entry, so that the squares of small gradients do not vanish.
    largest_f, largest_g = (_positive(jnp.max(jnp.abs(x), initial=0.0)) for x in (f, g))
    norm_f, norm_g = jnp.linalg.norm(f / largest_f), jnp.linalg.norm(g / largest_g)
    return (g / largest_g) * (norm_f / _positive(norm_g)) * largest_f


def _positive(x: jax.Array) -> jax.Array:
    """x, or 1 where x is 0."""
    return jnp.where(x == 0, jnp.ones_like(x), x)
