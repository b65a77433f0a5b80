"""The network of figure 6 of K. Chavez, "3D ConvNets with Optical Flow Based Regularization", and
a narrower one for small clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

FIRST_LAYER = "Conv_0"  # name of the first convolution's parameters
_FILL = 32  # output channels that keep XLA's convolution on CPU busy, by measurement


class ConvNet3D(nn.Module):
    """Five convolutions, of which three are followed by pooling, and three dense layers.

    Figure 6: conv 7x7x7x16, pool 2; conv 3x3x3x32, pool 2; conv 3x3x3x64, pool 2; conv 3x3x3x128;
    conv 3x3x3x128; dense 256; dense 256; softmax. Convolutions keep the size of a clip (the paper
    does not say; without padding 16 frames would not last to the end), pooling takes the maximum
    over 2 in each of time, height and width. ReLU everywhere, dropout on the two dense layers.

    The parameters are float32: Conv_0 ... Conv_4, each with a kernel (T, H, W, in, out) and a bias,
    and Dense_0 ... Dense_2.

    Attributes:
      num_classes: number of logits.
      widths: output channels of the five convolutions.
      dense: units of the dense layers before the last.
      first_kernel: (T, H, W) of the first convolution's kernels; the others are 3x3x3.
      dropout_rate: the probability that a dense unit is dropped in training.
      dtype: what the layers compute in; the logits are float32.

    Example:
      >>> model = ConvNet3D(num_classes=10)
      >>> clips = jnp.zeros((2, 16, 112, 112, 3))
      >>> jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), clips, False)[0]).shape
      (2, 10)
    """

    num_classes: int = 10
    widths: Sequence[int] = (16, 32, 64, 128, 128)
    dense: Sequence[int] = (256, 256)
    first_kernel: Sequence[int] = (7, 7, 7)
    dropout_rate: float = 0.2
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, clips: jax.Array, train: bool) -> jax.Array:
        """Logits (batch, num_classes), float32, of clips (batch, T, H, W, channels).

        Dropout draws from the random stream "dropout" where train is true.
        """
        if clips.ndim != 5:
            raise ValueError(f"clips: got shape {clips.shape}; accepted is (batch, T, H, W, C)")
        x = clips.astype(self.dtype)
        for layer, width in enumerate(self.widths):
            x = Conv(width, tuple(self.first_kernel) if layer == 0 else (3, 3, 3), self.dtype)(x)
            # Pooling first: the same values as ReLU first, on an eighth of the elements.
            x = nn.relu(pool(x) if layer < 3 else x)
        x = x.reshape(x.shape[0], -1)
        for units in self.dense:
            x = nn.Dense(units, dtype=self.dtype, kernel_init=nn.initializers.he_normal())(x)
            x = nn.Dropout(self.dropout_rate, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, dtype=self.dtype)(x).astype(jnp.float32)


def narrow(num_classes: int = 10, **options) -> ConvNet3D:
    """The same network for clips of 16 frames of 32x32 pixels, which trains on a laptop's CPU.

    Args:
      num_classes: number of logits.
      **options: other attributes of `ConvNet3D`, which take the place of the narrow ones.
    """
    small = {"widths": (8, 16, 32, 32, 32), "dense": (64, 64), "first_kernel": (5, 5, 5)}
    return ConvNet3D(num_classes, **{**small, **options})


class Conv(nn.Module):
    """A 3D convolution that keeps the size, with a bias.

    Attributes:
      features: output channels.
      kernel_size: (T, H, W).
      dtype: what it computes in.
    """

    features: int
    kernel_size: tuple[int, int, int]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", _he_normal, shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return conv3d(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)


def _he_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """He et al.'s initialisation of a kernel (T, H, W, in, out).

    The same numbers as Flax's he_normal gives, drawn as a matrix (fan-in, out), because XLA takes
    ten times as long to compile the drawing of an array of five axes.
    """
    return nn.initializers.he_normal()(key, (math.prod(shape[:-1]), shape[-1])).reshape(shape)


def conv3d(x: jax.Array, kernel: jax.Array, method: str = "auto") -> jax.Array:
    """A 3D convolution with zero padding that keeps the size ("SAME").

    Args:
      x: (batch, T, H, W, in).
      kernel: (t, h, w, in, out), of x's dtype.
      method: "native" is XLA's 3D convolution. "folded" is the same sum as a 2D convolution, with
        time folded into the channels: on CPU, where XLA's 3D convolution takes its slow path, it
        is 2 to 35 times as fast. "auto" chooses by the backend.

    Returns:
      (batch, T, H, W, out).

    Raises:
      ValueError: unknown method.
    """
    if method == "auto":
        method = "folded" if jax.default_backend() == "cpu" else "native"
    if method == "folded":
        return _folded(x, kernel)
    if method == "native":
        numbers = ("NDHWC", "DHWIO", "NDHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=numbers)
    raise ValueError(f"method: got {method!r}; accepted are auto, native and folded")


def _folded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """One 2D convolution that makes B frames at once.

    Frames s, ..., s + B - 1 of the output depend on the t + B - 1 frames around them, so these
    become the input channels, and B x out are the output channels:

        y[s + b, o] = sum over d, i of  x[s + d - before, i] * K[(d, i), (b, o)],
        K[(d, i), (b, o)] = kernel[d - b, i, o], and 0 where d - b is not in 0 ... t - 1.

    B is chosen so that there are enough output channels for the matrix product underneath.
    """
    (n, frames, height, width, inputs), (t, h, w, _, outputs) = x.shape, kernel.shape
    block = max(
        b for b in range(1, frames + 1) if frames % b == 0 and b * outputs <= max(_FILL, outputs)
    )
    depth = t + block - 1
    before, after = (t - 1) // 2, t // 2
    padded = jnp.pad(x, ((0, 0), (before, after), (0, 0), (0, 0), (0, 0)))
    taps = [padded[:, d : d + frames - block + 1 : block] for d in range(depth)]
    folded = jnp.concatenate(taps, axis=-1).reshape(-1, height, width, depth * inputs)
    shifted = [
        jnp.pad(kernel, ((b, block - 1 - b), (0, 0), (0, 0), (0, 0), (0, 0))) for b in range(block)
    ]
    kernel2d = jnp.stack(shifted, axis=-2)  # (d, h, w, in, b, out)
    kernel2d = kernel2d.transpose(1, 2, 0, 3, 4, 5).reshape(h, w, depth * inputs, block * outputs)
    y = lax.conv_general_dilated(
        folded, kernel2d, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    y = y.reshape(n, frames // block, height, width, block, outputs)
    return jnp.moveaxis(y, 4, 2).reshape(n, frames, height, width, outputs)


def pool(x: jax.Array) -> jax.Array:
    """The maximum over 2 in each of time, height and width; a remainder of 1 is left out.

    An axis of length 1 is kept. As a maximum over axes of length 2 its derivative is cheap. The
    maximum of numbers with a NaN among them is NaN, on every backend.

    Args:
      x: (batch, T, H, W, channels).
    """
    sizes = [2 if size > 1 else 1 for size in x.shape[1:4]]
    t, h, w = (size // part for size, part in zip(x.shape[1:4], sizes, strict=True))
    x = x[:, : t * sizes[0], : h * sizes[1], : w * sizes[2]]
    x = x.reshape(x.shape[0], t, sizes[0], h, sizes[1], w, sizes[2], x.shape[-1])
    # XLA's maximum drops NaN on a CPU, where a network of NaN would look like a working one.
    return jnp.where(jnp.isnan(x).any(axis=(2, 4, 6)), jnp.nan, x.max(axis=(2, 4, 6)))
