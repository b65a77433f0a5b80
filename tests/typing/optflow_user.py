"""Typical user code; pyright (basic) must accept it: `pyright tests/typing/optflow_user.py`."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import optflow_jax


def losses(params: dict[str, Any], kernel: jax.Array, alpha: jax.Array) -> jax.Array:
    filters = optflow_jax.collapse(kernel, "rgb")
    total = optflow_jax.cost(filters).sum()
    total += optflow_jax.cost(filters, alpha=0.5, temporal=False, solver="cg").mean()
    total += optflow_jax.cost(np.ones((2, 3, 4, 5)), alpha=alpha).sum()
    total += optflow_jax.cost_forward(filters, alpha=np.ones(8), on_failure="drop")[0]
    total += optflow_jax.regularizer(kernel, channels=[0.3, 0.6, 0.1], layout="flax")
    total += optflow_jax.regularizer(kernel, channels=jnp.ones(3), alpha=1, on_failure="drop")
    total += optflow_jax.tree_regularizer(params, where="all", layout="torch")
    total += optflow_jax.tree_regularizer(params, where=lambda path, leaf: leaf.ndim == 5)
    return total


def motion(filters: jax.Array) -> tuple[jax.Array, bool]:
    found = optflow_jax.flow(filters, solver="auto")
    u, v, *_ = found
    check: jax.Array = optflow_jax.loss(filters, u, v, alpha=1.0)
    return found.u + found.v + check, bool(found.converged.all())


gradient = jax.grad(lambda w: optflow_jax.cost(w).mean())
name: str = optflow_jax.first_convolution({"Conv_0": {"kernel": jnp.ones((1, 2, 3, 4, 5))}})
