"""Whether a trial is still made of numbers: NaN and infinity anywhere stop it.

A NaN parameter does not always show in a loss (max-pooling drops NaN on some backends), so every
evaluation looks at the parameters themselves.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from experiments.training.networks import Network, networks


@jax.jit
def _finite(parts: dict[str, Any]) -> dict[str, jax.Array]:
    def all_finite(tree):
        leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
        return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves] or [jnp.bool_(True)]))

    return {name: all_finite(tree) for name, tree in parts.items()}


def non_finite_parts(state: Any) -> list[str]:
    """Names of the parts of a task's state that hold NaN or infinity.

    Optimizer states are left out: what is wrong with them shows in the parameters.

    Args:
      state: a task's state. Of its networks the parameters, the other variables and the norms of
        the last step are looked at; of a state without networks every leaf.
    """
    parts: dict[str, Any] = {}
    for name, network in networks(state).items():
        of = f" of the {name}" if name else ""
        parts[f"parameters{of}"] = network.params
        parts[f"batch statistics{of}"] = network.collections
        parts[f"gradient or update{of}"] = network.norms
    others = [
        x
        for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, Network))
        if not isinstance(x, Network)
    ]
    parts["state"] = [x for x in others if hasattr(x, "dtype") and not _is_key(x)]
    return [name for name, fine in jax.device_get(_finite(parts)).items() if not fine]


def is_finite(sums: Any) -> bool:
    """Whether every number of a pytree is finite."""
    return bool(_finite({"sums": sums})["sums"])


def non_finite_values(record: dict[str, Any]) -> dict[str, float]:
    """The values of a record that are NaN or infinite."""
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, float) and not math.isfinite(value)
    }


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
