"""The L2 metric, eq. 3 of the paper."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from channel_grad._circulant import Circulant, GreenCirculant
from channel_grad._metrics._base import Metric, metric_dataclass


@metric_dataclass
class L2(Metric):
    """The ordinary metric, eq. 3: ``<k1, k2>``; its gradient is f itself.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> channel_grad.L2().gradient(jnp.array([1.0, 3.0]))
        Array([1., 3.], dtype=float32)
    """

    def _operator(self, n: int) -> Circulant:
        return GreenCirculant(identity=1.0, mean=0.0)

    def _gradient(self, f: jax.Array, axis: int, method: str) -> jax.Array:
        return f if method == "auto" else super()._gradient(f, axis, method)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        return jnp.mean(k1 * k2, axis=-1)
