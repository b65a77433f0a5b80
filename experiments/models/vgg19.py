"""The perceptual loss of SPADE: L1 distances between features of VGG-19.

Johnson et al., "Perceptual Losses for Real-Time Style Transfer" (ECCV 2016); the layers and weights
are those of Wang et al. (pix2pixHD) and Park et al. (SPADE), which also give the network images in
[-1, 1] as they are.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.system.tensor_files import read_tensors, weights

# Convolutions by stage: their numbers in torchvision's `features`, and their output channels. A
# stage ends with 2x2 maximum pooling; of the last one the loss needs the first convolution alone.
STAGES = (
    ((0, 2), 64),
    ((5, 7), 128),
    ((10, 12, 14, 16), 256),
    ((19, 21, 23, 25), 512),
    ((28,), 512),
)
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)

Kernels = dict[int, tuple[np.ndarray, np.ndarray]]


def load(path: pathlib.Path) -> Kernels:
    """Kernels (3, 3, in, out) and biases of a .npz or .safetensors file in torchvision's names.

    The names are "features.N.weight" (out, in, 3, 3) and "features.N.bias"; others are ignored.

    Raises:
      UserError: the file cannot be read, or a tensor is missing, has another shape or is not
        finite.
    """
    tensors = read_tensors(path)
    kernels, before = {}, 3
    for numbers, channels in STAGES:
        for number in numbers:
            found = []
            for kind, shape in (("weight", (channels, before, 3, 3)), ("bias", (channels,))):
                name = f"features.{number}.{kind}"
                found.append(weights(tensors, name, shape, str(path)))
            kernels[number] = found[0].transpose(2, 3, 1, 0), found[1]
            before = channels
    return kernels


def features(kernels: Kernels, images: jax.Array) -> list[jax.Array]:
    """The outputs of relu1_1, relu2_1, relu3_1, relu4_1 and relu5_1."""
    x, outputs = images, []
    for stage, (numbers, _) in enumerate(STAGES):
        if stage:
            x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        for number in numbers:
            kernel, bias = kernels[number]
            x = jax.lax.conv_general_dilated(
                x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            x = jax.nn.relu(x + bias)
            if number == numbers[0]:
                outputs.append(x)
    return outputs


def distance(kernels: Kernels, fake: jax.Array, real: jax.Array, weight: float) -> jax.Array:
    """weight * sum_i w_i mean |f_i(fake) - f_i(real)| of images in [-1, 1]."""
    found, wanted = features(kernels, fake), features(kernels, jax.lax.stop_gradient(real))
    distances = [jnp.mean(jnp.abs(a - b)) for a, b in zip(found, wanted, strict=True)]
    return weight * sum(w * d for w, d in zip(WEIGHTS, distances, strict=True))


def perceptual_loss(
    path: pathlib.Path, weight: float
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """`distance` of (generated, real), with the weights of a file; see `load`."""
    return partial(distance, load(path), weight=weight)
