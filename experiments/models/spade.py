"""The generator of SPADE: from a label map to an image, the label map steering every normalisation.

Park et al., "Semantic Image Synthesis with Spatially-Adaptive Normalization" (CVPR 2019), section 3
and figures 2 to 4; widths and layers are those that the authors train on Cityscapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

# Output channels of the residual blocks, in units of `width`, and the most that images are doubled.
BLOCKS = (16, 16, 16, 8, 4, 2, 1)
MOST_UPSAMPLINGS = len(BLOCKS) - 1
LEAST_SIDE = 4  # pixels; the shorter side of the first block's input, where the image allows it

# "xavier" with gain 0.02. Layers with spectral normalisation do not feel its scale in what they
# compute, but in their learning rate: the gradient by the raw kernel is larger by 1 / sigma.
GAIN = 0.02
small_xavier = nn.initializers.variance_scaling(GAIN**2, "fan_avg", "normal")


class Generator(nn.Module):
    """Seven residual blocks, each but the first at up to twice the resolution of the one before.

    Batch normalisation keeps its running statistics in the collection "batch_stats", spectral
    normalisation its singular vectors in "spectral".

    Attributes:
      width: channels of the last block (ngf); 64 gives the network of the paper.
      channels: of the image.

    Example:
      >>> model = Generator(width=2)
      >>> condition = jnp.zeros((1, 48, 80, 5))
      >>> image, _ = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), condition,
      ...                                                          train=False))
      >>> image.shape
      (1, 48, 80, 3)
    """

    width: int = 64
    channels: int = 3

    @nn.compact
    def __call__(self, condition: jax.Array, train: bool) -> jax.Array:
        """Images in [-1, 1], (N, H, W, channels), from one-hot label maps (N, H, W, C)."""
        *sizes, full = resolutions(*condition.shape[1:3])
        # Where there are fewer than six doublings, the first blocks share a resolution.
        sizes = [sizes[0] if sizes else full] * (len(BLOCKS) - len(sizes) - 1) + [*sizes, full]
        x = nn.Conv(BLOCKS[0] * self.width, (3, 3), kernel_init=small_xavier)(
            nearest(condition, sizes[0])
        )
        for multiple, size in zip(BLOCKS, sizes, strict=True):
            x = nearest(x, size)
            x = Block(multiple * self.width, hidden=2 * self.width)(x, condition, train)
        x = nn.Conv(self.channels, (3, 3), kernel_init=small_xavier)(nn.leaky_relu(x, 0.2))
        return jnp.tanh(x)


class Block(nn.Module):
    """A residual block: twice SPADE, leaky ReLU and a 3x3 convolution, around a skip connection.

    Attributes:
      channels: of the output.
      hidden: see `Modulation`.
    """

    channels: int
    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """(N, h, w, channels) from x (N, h, w, c) and label maps (N, H, W, C)."""
        condition = nearest(condition, x.shape[1:3])
        modulated = partial(Modulation, self.hidden)

        def convolution(channels, window, name, use_bias=True):
            return spectral(
                nn.Conv(channels, window, use_bias=use_bias, kernel_init=small_xavier, name=name),
                update=train,
            )

        skip = x
        if x.shape[-1] != self.channels:
            skip = modulated(name="modulation_skip")(x, condition, train)
            skip = convolution(self.channels, (1, 1), "skip", use_bias=False)(skip)
        middle = min(x.shape[-1], self.channels)
        for index, channels in enumerate((middle, self.channels)):
            x = modulated(name=f"modulation_{index}")(x, condition, train)
            x = convolution(channels, (3, 3), f"conv_{index}")(nn.leaky_relu(x, 0.2))
        return skip + x


class Modulation(nn.Module):
    """SPADE(x) = normalised(x) (1 + gamma) + beta, with gamma and beta made from the label map.

    The normalisation is batch normalisation without parameters of its own.

    Attributes:
      hidden: channels of the layer between the label map and gamma and beta.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, condition: jax.Array, train: bool) -> jax.Array:
        """As x (N, h, w, c); condition is (N, h, w, C)."""
        normalised = nn.BatchNorm(
            use_running_average=not train, momentum=0.9, use_scale=False, use_bias=False
        )(x)
        convolution = partial(nn.Conv, kernel_size=(3, 3), kernel_init=small_xavier)
        shared = nn.relu(convolution(self.hidden, name="shared")(condition))
        gamma = convolution(x.shape[-1], name="gamma")(shared)
        beta = convolution(x.shape[-1], name="beta")(shared)
        return normalised * (1 + gamma) + beta


def spectral(layer: nn.Module, update: bool) -> Callable[[jax.Array], jax.Array]:
    """The layer with its kernel W / sigma(W), sigma from one step of power iteration for each call.

    The raw kernel W stays the parameter: a metric acts on the gradient by W. The singular vector
    and sigma are kept in the collection "spectral".

    Miyato et al., "Spectral Normalization for Generative Adversarial Networks" (ICLR 2018).

    Args:
      layer: a named layer of the module that calls this.
      update: whether the step of power iteration is kept.
    """
    norm = nn.SpectralNorm(layer, collection_name="spectral", name=f"{layer.name}_spectral")
    return partial(norm, update_stats=update)


def initialize(key: jax.Array, shapes: Any) -> Any:
    """The variables of SPADE's networks before their first step, all normal numbers in one draw.

    They are distributed as `Module.init` draws them, which takes a long time to compile: one
    generator of random numbers for each kernel.

    Args:
      key: of the random numbers.
      shapes: what `jax.eval_shape` of `Module.init` returns.
    """
    leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
    drawn = [leaf.size if leaf.ndim > 1 else 0 for _, leaf in leaves]
    ends = np.cumsum(drawn)
    numbers = jax.random.normal(key, (int(ends[-1]),))
    values = []
    for (path, leaf), size, end in zip(leaves, drawn, ends, strict=True):
        name = path[-1].key.rpartition("/")[2]
        if not size:
            values.append(jnp.full(leaf.shape, float(name in ("var", "sigma")), leaf.dtype))
            continue
        deviation = 1.0
        if name == "kernel":
            area, (inputs, outputs) = math.prod(leaf.shape[:-2]), leaf.shape[-2:]
            deviation = GAIN * math.sqrt(2 / (area * (inputs + outputs)))
        values.append(deviation * numbers[end - size : end].reshape(leaf.shape))
    return jax.tree.unflatten(tree, values)


def resolutions(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the coarsest to the image's own, each half of the next, rounded up.

    The shorter side of the coarsest is at least 4 pixels, unless the image's is less.

    Example:
      >>> resolutions(256, 512)
      [(4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512)]
      >>> resolutions(18, 30)
      [(5, 8), (9, 15), (18, 30)]
    """
    sizes = [(height, width)]
    while len(sizes) <= MOST_UPSAMPLINGS and -(-min(sizes[0]) // 2) >= LEAST_SIDE:
        sizes.insert(0, tuple(-(-side // 2) for side in sizes[0]))
    return sizes


def nearest(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """x (N, H, W, C) resized to (N, *size, C): pixel i of h comes from pixel floor(i H / h) of H.

    This is what PyTorch calls nearest. `jax.image.resize` takes the pixel at the centre, and a
    smoothing filter where it shrinks.

    Example:
      >>> nearest(jnp.arange(6.0).reshape(1, 1, 6, 1), (1, 3)).ravel().tolist()
      [0.0, 2.0, 4.0]
      >>> nearest(jnp.arange(2.0).reshape(1, 1, 2, 1), (1, 4)).ravel().tolist()
      [0.0, 0.0, 1.0, 1.0]
    """
    for axis, wanted in zip((1, 2), size, strict=True):
        had = x.shape[axis]
        if wanted == had:
            continue
        if had % wanted == 0:
            x = x[:, :: had // wanted] if axis == 1 else x[:, :, :: had // wanted]
        elif -(-wanted // 2) == had:  # a doubling, without the last row where that is one too many
            x = jax.lax.slice_in_dim(jnp.repeat(x, 2, axis=axis), 0, wanted, axis=axis)
        else:
            x = jnp.take(x, np.arange(wanted) * had // wanted, axis=axis)
    return x
