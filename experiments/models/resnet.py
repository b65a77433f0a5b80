"""Residual networks for 32 x 32 images, as in He et al., "Deep Residual Learning for Image
Recognition" (CVPR 2016), section 4.2."""

from __future__ import annotations

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut (option A of the paper).

    Where the width or the resolution changes, the shortcut takes every second pixel and pads the
    new channels with zeros.

    With stochastic depth (Huang et al., "Deep Networks with Stochastic Depth", 2016) the
    convolutions of a block are left out of a training step with probability `drop_rate`, for the
    whole minibatch; in evaluation their output is scaled by 1 - drop_rate. What is left out is
    computed all the same, so the batch statistics inside the block still follow the data.

    Attributes:
      filters: channels of the output.
      strides: 2 halves the resolution.
      dtype: what the convolutions compute in.
      drop_rate: above 0 the block draws from the random stream "dropout" in training.
    """

    filters: int
    strides: int
    dtype: Any
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(
            nn.Conv,
            self.filters,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )
        # Statistics and normalisation stay in float32 whatever the convolutions compute in.
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, dtype=jnp.float32)

        y = nn.relu(norm()(conv(strides=self.strides)(x)))
        y = norm()(conv()(y))
        if self.drop_rate > 0 and train:
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - self.drop_rate)
            y = jnp.where(kept, y, 0)
        elif self.drop_rate > 0:
            y = (1 - self.drop_rate) * y
        shortcut = x[:, :: self.strides, :: self.strides, :]
        new_channels = self.filters - x.shape[-1]
        shortcut = jnp.pad(
            shortcut, ((0, 0), (0, 0), (0, 0), (new_channels // 2, (new_channels + 1) // 2))
        )
        return nn.relu(shortcut + y).astype(self.dtype)


class ResNet(nn.Module):
    """A residual network of 6 n + 2 layers for small images.

    Attributes:
      depth: 6 n + 2; 56 is three stages of nine blocks and 0.85 million parameters.
      num_classes: number of logits.
      width: channels of the first stage, doubled at each of the two reductions.
      dtype: what the convolutions compute in; parameters, batch statistics and logits are
        float32.
      stochastic_depth: the drop rate of the last block; that of block l of L is l / L of it (the
        linear decay rule). See `BasicBlock`.

    Example:
      >>> model = ResNet(depth=56, num_classes=10)
      >>> images = jnp.zeros((4, 32, 32, 3))
      >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, False)[0]).shape
      (4, 10)
    """

    depth: int = 56
    num_classes: int = 10
    width: int = 16
    dtype: Any = jnp.float32
    stochastic_depth: float = 0.0

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (batch, num_classes) of images (batch, height, width, channels)."""
        blocks, rest = divmod(self.depth - 2, 6)
        if rest or blocks < 1:
            raise ValueError(f"depth: got {self.depth}; accepted is 6 n + 2 with n >= 1")
        x = nn.Conv(
            self.width,
            (3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            kernel_init=nn.initializers.he_normal(),
        )(images)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, dtype=jnp.float32)(x)
        x = nn.relu(x).astype(self.dtype)
        for stage in range(3):
            for block in range(blocks):
                strides = 2 if stage > 0 and block == 0 else 1
                rate = self.stochastic_depth * (stage * blocks + block + 1) / (3 * blocks)
                x = BasicBlock(self.width * 2**stage, strides, self.dtype, rate)(x, train)
        x = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        return nn.Dense(self.num_classes)(x)
