"""A linear classifier: one template and one bias for each class."""

from __future__ import annotations

import flax.linen as nn
import jax


class Linear(nn.Module):
    """Scores W x + b of flat examples.

    Attributes:
      num_classes: number of scores.
      scale: standard deviation of the initial weights; biases begin at 0.

    Example:
      >>> import jax.numpy as jnp
      >>> Linear(10).init_with_output(jax.random.key(0), jnp.ones((2, 8, 8, 3)), False)[0].shape
      (2, 10)
    """

    num_classes: int = 10
    scale: float = 0.01

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Scores (batch, num_classes) of examples (batch, ...)."""
        del train
        flat = images.reshape(len(images), -1)
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(self.scale))(flat)
