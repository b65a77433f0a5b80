"""U-Net with a ResNet encoder, squeeze and excitation in the decoder, and a hypercolumn.

Ronneberger, Fischer and Brox, "U-Net" (2015); the decoder with concurrent spatial and channel
excitation (SCSE) of Roy, Navab and Wachinger, "Concurrent spatial and channel squeeze & excitation
in fully convolutional networks" (2018); the head of Hariharan et al., "Hypercolumns for object
segmentation" (2015). "Channel-Directed Gradients for Optimization of Convolutional Neural Networks"
trains it on Pascal VOC (figure 7), as it is in github.com/nyoki-mtl/pytorch-segmentation.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from experiments.models.resnet_encoder import WIDTH, ResNetEncoder, batch_norm

STRIDE = 64  # height and width of an image are multiples of it
_REDUCTION = 16


class SCSE(nn.Module):
    """x * sigmoid(fc(mean x)) + x * sigmoid(conv1x1 x): excitation of channels and of pixels."""

    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        mean = jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
        inner = nn.relu(nn.Dense(max(1, channels // _REDUCTION), name="squeeze")(mean))
        of_channels = nn.sigmoid(nn.Dense(channels, name="excite")(inner))
        of_pixels = nn.sigmoid(
            nn.Conv(1, (1, 1), use_bias=False, dtype=self.dtype, name="spatial_conv")(x)
        )
        return x * of_channels[:, None, None].astype(self.dtype) + x * of_pixels


class DecoderBlock(nn.Module):
    """3x3 convolution, normalisation, ReLU, SCSE, and a transposed convolution to twice the size.

    Attributes:
      middle: channels inside.
      filters: channels of the output.
      dtype: what the convolutions compute in.
    """

    middle: int
    filters: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, train: bool, *inputs: jax.Array) -> jax.Array:
        x = jnp.concatenate(inputs, axis=-1)
        he = nn.initializers.he_normal()
        x = nn.Conv(self.middle, (3, 3), padding=1, dtype=self.dtype, kernel_init=he, name="conv")(
            x
        )
        x = nn.relu(batch_norm(use_running_average=not train, name="bn")(x)).astype(self.dtype)
        x = SCSE(self.dtype, name="scse")(x)
        # The kernel is (height, width, input, output), as that of a convolution.
        return nn.ConvTranspose(
            self.filters, (4, 4), (2, 2), padding="SAME", dtype=self.dtype, name="transposed_conv"
        )(x)


class UNet(nn.Module):
    """The network of figure 7, from images to logits of the same height and width.

    Attributes:
      num_classes: number of logits of a pixel.
      encoder: "resnet50" or "resnet18".
      decoder_filters: n, channels of the last decoder block. With ResNet-50 n = 8 gives 50.7
        million parameters and n = 16 gives 88.1 million.
      width: channels of the encoder's first layer and of the head; 64 is the paper's network.
      dtype: what the convolutions compute in; parameters, batch statistics and logits are
        float32.

    Example:
      >>> model, images = UNet(21, "resnet18", 1, width=8), jnp.zeros((2, 64, 128, 3))
      >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), images, False)[0]).shape
      (2, 64, 128, 21)
    """

    num_classes: int
    encoder: str = "resnet50"
    decoder_filters: int = 8
    width: int = WIDTH
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Logits (N, H, W, num_classes) of images (N, H, W, C); H and W are multiples of 64."""
        count, height, width, _ = images.shape
        if height % STRIDE or width % STRIDE:
            raise ValueError(
                f"images: got {height} x {width}; accepted: height and width that are multiples of "
                f"{STRIDE}"
            )
        encode = ResNetEncoder(self.encoder, self.width, self.dtype, name="encoder")
        e1, e2, e3, e4, e5 = encode(images.astype(self.dtype), train)

        def decode(name, middle, filters, *inputs):
            n = self.decoder_filters
            block = DecoderBlock(middle * n, filters * n, self.dtype, name=name)
            return block(train, *inputs)

        center = decode("center", 64, 32, nn.max_pool(e5, (2, 2), (2, 2)))
        d5 = decode("decoder5", 64, 16, center, e5)
        d4 = decode("decoder4", 32, 8, d5, e4)
        d3 = decode("decoder3", 16, 4, d4, e3)
        d2 = decode("decoder2", 8, 2, d3, e2)
        d1 = decode("decoder1", 4, 1, d2, resized(e1, (height // 2, width // 2)))
        column = [d1, *(resized(d, (height, width)) for d in (d2, d3, d4, d5))]
        x = nn.Conv(
            self.width, (1, 1), dtype=self.dtype, kernel_init=nn.initializers.he_normal(),
            name="head_conv",
        )(jnp.concatenate(column, axis=-1))  # fmt: skip
        x = nn.relu(batch_norm(use_running_average=not train, name="head_bn")(x))
        return nn.Conv(self.num_classes, (1, 1), name="logits_conv")(x)


def resized(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Features (N, h, w, C) scaled up bilinearly to (N, *size, C), pixel areas kept aligned."""
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "bilinear")
