"""A network of two convolutions for 28 x 28 images, for the smoothness sweep.

"Channel-Directed Gradients for Optimization of Convolutional Neural Networks", figure 6: "a 2-layer
CNN" with 50 and 100 filters of 5x5. The paper does not say what lies between and behind the two
layers; here each is followed by ReLU and 2x2 maximum pooling, and one dense layer gives the logits.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """The maximum of each 2x2 block of `x` (batch, height, width, channels), without overlap.

    The same as nn.max_pool(x, (2, 2), strides=(2, 2)), but that a tie divides the gradient. XLA's
    gradient of a pooling window is slow on a CPU: a training step takes 0.8 of the time with this.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    x = jnp.maximum(x[:, 0::2], x[:, 1::2])
    return jnp.maximum(x[:, :, 0::2], x[:, :, 1::2])


class SmallCNN(nn.Module):
    """Two 5x5 convolutions, each with ReLU and 2x2 maximum pooling, and one dense layer.

    Attributes:
      num_classes: number of logits.
      filters: output channels of the two convolutions.
      dtype: what the convolutions compute in; parameters and logits are float32.

    Example:
      >>> model = SmallCNN(num_classes=10)
      >>> variables = model.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), train=False)
      >>> model.apply(variables, jnp.zeros((4, 28, 28, 1)), train=False).shape
      (4, 10)
    """

    num_classes: int = 10
    filters: tuple[int, int] = (50, 100)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (batch, num_classes) of images (batch, height, width, channels).

        `train` changes nothing: the network has neither dropout nor normalisation.
        """
        del train
        x = images
        for filters in self.filters:
            x = nn.Conv(
                filters,
                (5, 5),
                padding=2,
                dtype=self.dtype,
                kernel_init=nn.initializers.he_normal(),
            )(x)
            x = max_pool_2x2(nn.relu(x))
        return nn.Dense(self.num_classes)(x.reshape(len(x), -1).astype(jnp.float32))
