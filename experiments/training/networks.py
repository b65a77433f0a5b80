"""One trained network: its parameters, other variables and optimizer state, and a step of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from experiments.training import averaging

# What `norms` of a network holds, in this order.
NORMS = ("gradient_norm", "parameter_norm", "update_norm")


@flax.struct.dataclass
class Network:
    """A network in training. A task's state holds one or several.

    Attributes:
      params: the parameters, float32.
      collections: the model's other variables, such as batch statistics; {} if there are none.
      opt_state: the optimizer's state.
      norms: norms of the gradient, the parameters and the update in the last step, (3,) float32.
    """

    params: Any
    collections: Any
    opt_state: Any
    norms: jax.Array

    @classmethod
    def create(cls, variables: Any, optimizer: optax.GradientTransformation) -> Network:
        """A network before its first step, from the variables that `Module.init` returned."""
        collections = dict(variables)
        params = collections.pop("params")
        return cls(params, collections, optimizer.init(params), jnp.zeros(3, jnp.float32))

    @property
    def variables(self) -> dict[str, Any]:
        """What `Module.apply` takes."""
        return {"params": self.params, **self.collections}


def gradient_step(
    network: Network,
    optimizer: optax.GradientTransformation,
    loss_fn: Callable[[Any], tuple[jax.Array, tuple[Any, Any]]],
) -> tuple[Network, Any]:
    """One step of an optimizer, with the mean gradient of all devices that share the batch.

    Args:
      network: before the step.
      optimizer: from the gradient to an update, metric and learning rate included.
      loss_fn: parameters to (loss, (collections after the step, anything else)).

    Returns:
      The network after the step, its `norms` included, and what loss_fn returned besides.
    """
    own = averaging.own(network.params)
    gradient, (collections, aux) = jax.grad(loss_fn, has_aux=True)(own)
    gradient = averaging.mean_gradient(gradient)
    updates, opt_state = optimizer.update(gradient, network.opt_state, network.params)
    params = optax.apply_updates(network.params, updates)
    norms = [optax.tree.norm(tree) for tree in (gradient, network.params, updates)]
    stepped = Network(params, dict(collections), opt_state, jnp.stack(norms).astype(jnp.float32))
    return stepped, aux


def networks(state: Any) -> dict[str, Network]:
    """The networks inside a task's state by their path ("" where the state is one network)."""
    found = jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda x: isinstance(x, Network))
    return {
        "_".join(_name(entry) for entry in path): leaf
        for path, leaf in found
        if isinstance(leaf, Network)
    }


def _name(entry: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)
