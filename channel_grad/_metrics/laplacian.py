"""Laplacian smoothing, Osher et al., arXiv 1806.06317: the baseline of the paper."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from channel_grad._circulant import METHODS, Circulant, SpectralCirculant
from channel_grad._metrics._base import Metric, check_number, metric_dataclass


@metric_dataclass
class LaplacianSmoothing(Metric):
    """Laplacian smoothing of Osher et al.: ``g = (I + (-1)^order sigma Delta^order)^-1 f``.

    Delta is the periodic [1, -2, 1], so that high frequencies are divided by up to
    ``1 + sigma 4^order``, whatever the length of the axis. The metric is
    ``<k1, (I + (-1)^order sigma Delta^order) k2>``.

    The order is static. An integer array is also taken, because `optax.inject_hyperparams` makes
    one of every number.

    Raises:
        ValueError: if sigma < 0, or order is not an integer >= 1.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> channel_grad.LaplacianSmoothing(sigma=0.75).gradient(jnp.array([1.0, 3.0]))
        Array([1.75, 2.25], dtype=float32)
    """

    METHODS: ClassVar[tuple[str, ...]] = tuple(name for name in METHODS if name != "prefix")

    sigma: ArrayLike = field(
        default=1.0, metadata={"help": "Strength of the smoothing.", "minimum": 0.0}
    )
    order: int = field(
        default=1,
        metadata={"help": "Power of the Laplacian.", "minimum": 1, "static": True},
    )

    def __post_init__(self) -> None:
        check_number("sigma", self.sigma)
        _check_order(self.order)

    def _operator(self, n: int) -> Circulant:
        def response(t: jax.Array) -> jax.Array:
            # An order that is an array is converted, as strict dtype promotion wants it.
            order = self.order.astype(t.dtype) if isinstance(self.order, jax.Array) else self.order
            return 1 / (1 + jnp.asarray(self.sigma, t.dtype) * t**order)

        return SpectralCirculant(response)

    def _inner(self, k1: jax.Array, k2: jax.Array) -> jax.Array:
        image = k2
        # (-1)^order Delta^order k2, one factor [-1, 2, -1] after the other.
        for _ in range(self.order):
            image = 2 * image - jnp.roll(image, 1, axis=-1) - jnp.roll(image, -1, axis=-1)
        return jnp.mean(k1 * (k2 + jnp.asarray(self.sigma, k1.dtype) * image), axis=-1)


def _check_order(order: Any) -> None:
    """Of a tracer, shape and dtype are known and checked, its value is not."""
    if isinstance(order, np.ndarray | np.generic | jax.Array):
        right = order.shape == () and jnp.issubdtype(order.dtype, jnp.integer)
    else:
        right = hasattr(order, "__index__") and not isinstance(order, bool)
    known = right and not isinstance(order, Tracer)
    if not right or (known and int(order) < 1):
        raise ValueError(f"order: got {order!r}; accepted: an integer >= 1")
