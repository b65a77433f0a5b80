"""Transformations of the gradient that channel-directed metrics are compared with.

They stand where a metric stands: first in the chain, on the gradient of the loss.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
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
