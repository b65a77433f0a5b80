"""VGG-16 with batch normalisation for 32 x 32 images.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition" (2014),
configuration D. As is usual for small images, one dense layer follows the convolutions in place of
three. "Channel-Directed Gradients for Optimization of Convolutional Neural Networks" trains a
VGG-16 on CIFAR-10 in section 4 and does not describe its dense layers.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Output channels of the 3x3 convolutions of each stage; a stage ends with 2x2 maximum pooling.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(nn.Module):
    """Thirteen 3x3 convolutions with batch normalisation, and one dense layer.

    Attributes:
      num_classes: number of logits.
      width: divides the number of channels of each layer: 1 is the paper's network with 14.7
        million parameters, 8 or 16 a small one for tests. Accepted: 1, 2, 4, ..., 64.
      dtype: what the convolutions compute in; parameters, batch statistics and logits are
        float32.

    Example:
      >>> model = VGG16(num_classes=10, width=16)
      >>> images = jnp.zeros((4, 32, 32, 3))
      >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, False)[0]).shape
      (4, 10)
    """

    num_classes: int = 10
    width: int = 1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (batch, num_classes) of images (batch, height, width, channels)."""
        if self.width < 1 or STAGES[0][0] % self.width:
            raise ValueError(f"width: got {self.width}; accepted: a divisor of {STAGES[0][0]}")
        if min(images.shape[1:3]) < 2 ** len(STAGES):
            raise ValueError(
                f"images: got shape {images.shape}; accepted: height and width of at least "
                f"{2 ** len(STAGES)}, which are halved {len(STAGES)} times"
            )
        x = images
        for stage in STAGES:
            for channels in stage:
                # No bias: the normalisation that follows would take it away.
                x = nn.Conv(
                    channels // self.width,
                    (3, 3),
                    padding=1,
                    use_bias=False,
                    dtype=self.dtype,
                    kernel_init=nn.initializers.he_normal(),
                )(x)
                # Statistics and normalisation are float32 whatever the convolutions compute in.
                x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.float32)(x)
                x = nn.relu(x).astype(self.dtype)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        # One position is left of 32 x 32 pixels; larger images are averaged.
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes)(x)
