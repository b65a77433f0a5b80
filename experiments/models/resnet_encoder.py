"""The encoders of segmentation networks: ResNet-18 and ResNet-50 as torchvision builds them.

He et al., "Deep residual learning for image recognition" (CVPR 2016), with the stride of a
bottleneck in its 3x3 convolution, as in torchvision. The modules have torchvision's names, so that
its weights fit: see `models.torchvision_weights`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

ENCODERS = ("resnet50", "resnet18")
# Residual blocks of each of the four layers.
BLOCKS = {"resnet50": (3, 4, 6, 3), "resnet18": (2, 2, 2, 2)}
# Output channels of a block over its width.
EXPANSION = {"resnet50": 4, "resnet18": 1}
WIDTH = 64

# Statistics and normalisation are float32 whatever the convolutions compute in.
batch_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5, dtype=jnp.float32)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3 and 1x1 with four times the channels.

    Attributes:
      filters: width of the block.
      strides: 1, or 2 to halve the resolution.
      bottleneck: whether it is the block of ResNet-50.
      dtype: what the convolutions compute in.
    """

    filters: int
    strides: int
    bottleneck: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        norm = partial(batch_norm, use_running_average=not train)
        conv = partial(
            nn.Conv, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.he_normal()
        )
        channels = self.filters * (4 if self.bottleneck else 1)
        if self.bottleneck:
            plan = ((self.filters, 1, 1), (self.filters, 3, self.strides), (channels, 1, 1))
        else:
            plan = ((self.filters, 3, self.strides), (self.filters, 3, 1))
        y = x
        for number, (filters, size, strides) in enumerate(plan, start=1):
            y = conv(filters, (size, size), strides, padding=size // 2, name=f"conv{number}")(y)
            y = norm(name=f"bn{number}")(y)
            if number < len(plan):
                y = nn.relu(y).astype(self.dtype)
        if self.strides != 1 or x.shape[-1] != channels:
            x = conv(channels, (1, 1), self.strides, name="downsample_conv")(x)
            x = norm(name="downsample_bn")(x)
        return nn.relu(x + y).astype(self.dtype)


class ResNetEncoder(nn.Module):
    """The convolutions of a ResNet, with the outputs of all resolutions.

    Attributes:
      kind: one of `ENCODERS`.
      width: channels of the first layer; 64 is the network of the paper.
      dtype: what the convolutions compute in.

    Example:
      >>> model, images = ResNetEncoder("resnet18", width=8), jnp.zeros((1, 64, 64, 3))
      >>> make = lambda: model.init_with_output(jax.random.key(0), images, False)[0]
      >>> [features.shape for features in jax.eval_shape(make)]
      [(1, 16, 16, 8), (1, 16, 16, 8), (1, 8, 8, 16), (1, 4, 4, 32), (1, 2, 2, 64)]
    """

    kind: str = "resnet50"
    width: int = WIDTH
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> list[jax.Array]:
        """Features of images (N, H, W, C): at 1/4 before the blocks, then at 1/4, 1/8, 1/16, 1/32.

        Height and width of the images are multiples of 32.
        """
        x = nn.Conv(
            self.width, (7, 7), 2, padding=3, use_bias=False, dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(), name="conv1",
        )(images)  # fmt: skip
        x = nn.relu(batch_norm(use_running_average=not train, name="bn1")(x)).astype(self.dtype)
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features = [x]
        for layer, count in enumerate(BLOCKS[self.kind], start=1):
            for index in range(count):
                x = Block(
                    self.width * 2 ** (layer - 1),
                    strides=2 if layer > 1 and index == 0 else 1,
                    bottleneck=EXPANSION[self.kind] == 4,
                    dtype=self.dtype,
                    name=f"layer{layer}_{index}",
                )(x, train)
            features.append(x)
        return features
