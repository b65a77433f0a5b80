"""The Inception network of FID: images to 2048 features.

Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), in the variant
that FID is defined by (Heusel et al., 2017): TensorFlow's graph of 2015-12-05. It differs from
torchvision's Inception v3 in this: means of pixels at the border leave out the padding, the last
block takes maxima in place of means, and there are 1008 outputs. Other weights give other numbers.

The weights are read from a .npz or .safetensors file with torchvision's names of layers, such as
"Mixed_5b.branch1x1.conv.weight"; `python -m experiments.prepare_data inception` makes one from
pt_inception-2015-12-05-6726825d.pth of pytorch-fid.
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.system import tensor_files

SIDE = 299  # pixels; images are resized to it
FEATURES = 2048
EPSILON = 1e-3
_PARTS = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")


class Layer(NamedTuple):
    """A convolution without bias, batch normalisation and ReLU.

    Attributes:
      name: in torchvision.
      outputs: channels.
      window: (height, width).
      stride: in both directions.
      padding: (rows, columns) of zeros on each side.
    """

    name: str
    outputs: int
    window: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)


_SQUARE, _ROW, _COLUMN = {"window": (3, 3)}, {"window": (1, 7), "padding": (0, 3)}, {
    "window": (7, 1), "padding": (3, 0),
}  # fmt: skip
_PADDED = {"window": (3, 3), "padding": (1, 1)}
_THIN_ROW, _THIN_COLUMN = {"window": (1, 3), "padding": (0, 1)}, {
    "window": (3, 1), "padding": (1, 0),
}  # fmt: skip

Chain = tuple[Layer, ...]


class Block(NamedTuple):
    """Branches that are computed from one input and joined along the channels.

    Attributes:
      name: in torchvision.
      branches: chains of layers. The last of a chain may be a tuple of layers that share an input.
      pool: "mean" and "max" keep the size and are followed by the layer branch_pool; "reduce"
        halves the size and is followed by nothing.
      pooled: output channels of branch_pool.
    """

    name: str
    branches: tuple[tuple[Any, ...], ...]
    pool: str
    pooled: int = 0


def _chain(prefix: str, *layers: tuple[int, dict[str, Any]]) -> Chain:
    return tuple(
        Layer(f"{prefix}_{number}", outputs, **kind)
        for number, (outputs, kind) in enumerate(layers, start=1)
    )


def _block_35(name: str, pooled: int) -> Block:
    five = {"window": (5, 5), "padding": (2, 2)}
    return Block(
        name,
        (
            (Layer("branch1x1", 64),),
            _chain("branch5x5", (48, {}), (64, five)),
            _chain("branch3x3dbl", (64, {}), (96, _PADDED), (96, _PADDED)),
        ),
        "mean",
        pooled,
    )


def _block_17(name: str, narrow: int) -> Block:
    return Block(
        name,
        (
            (Layer("branch1x1", 192),),
            _chain("branch7x7", (narrow, {}), (narrow, _ROW), (192, _COLUMN)),
            _chain(
                "branch7x7dbl",
                (narrow, {}), (narrow, _COLUMN), (narrow, _ROW), (narrow, _COLUMN), (192, _ROW),
            ),
        ),
        "mean",
        192,
    )  # fmt: skip


def _block_8(name: str, pool: str) -> Block:
    def split(prefix, first, second):
        return (
            Layer(f"{prefix}_{first}", 384, **_THIN_ROW),
            Layer(f"{prefix}_{second}", 384, **_THIN_COLUMN),
        )

    return Block(
        name,
        (
            (Layer("branch1x1", 320),),
            (Layer("branch3x3_1", 384), split("branch3x3", "2a", "2b")),
            (
                *_chain("branch3x3dbl", (448, {}), (384, _PADDED)),
                split("branch3x3dbl", "3a", "3b"),
            ),
        ),
        pool,
        192,
    )


_HALVING = _SQUARE | {"stride": 2}
STEM: tuple[Layer | None, ...] = (  # None: 3x3 maximum pooling with stride 2
    Layer("Conv2d_1a_3x3", 32, **_HALVING),
    Layer("Conv2d_2a_3x3", 32, **_SQUARE),
    Layer("Conv2d_2b_3x3", 64, **_PADDED),
    None,
    Layer("Conv2d_3b_1x1", 80),
    Layer("Conv2d_4a_3x3", 192, **_SQUARE),
    None,
)
BLOCKS = (
    _block_35("Mixed_5b", 32),
    _block_35("Mixed_5c", 64),
    _block_35("Mixed_5d", 64),
    Block(
        "Mixed_6a",
        (
            (Layer("branch3x3", 384, **_HALVING),),
            _chain("branch3x3dbl", (64, {}), (96, _PADDED), (96, _HALVING)),
        ),
        "reduce",
    ),
    _block_17("Mixed_6b", 128),
    _block_17("Mixed_6c", 160),
    _block_17("Mixed_6d", 160),
    _block_17("Mixed_6e", 192),
    Block(
        "Mixed_7a",
        (
            _chain("branch3x3", (192, {}), (320, _HALVING)),
            _chain("branch7x7x3", (192, {}), (192, _ROW), (192, _COLUMN), (192, _HALVING)),
        ),
        "reduce",
    ),
    _block_8("Mixed_7b", "mean"),
    _block_8("Mixed_7c", "max"),
)

Weights = Mapping[str, Any]


def shapes() -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that the features need, by its name, as PyTorch keeps them.

    Example:
      >>> found = shapes()
      >>> len(found), found["Mixed_7c.branch_pool.conv.weight"]
      (470, (192, 2048, 1, 1))
    """
    found = {}
    for name, layer, inputs in _layers():
        kernel = (layer.outputs, inputs, *layer.window)
        for part in _PARTS:
            found[f"{name}.{part}"] = kernel if part == "conv.weight" else (layer.outputs,)
    return found


def load(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The weights of a file, checked: float32, kernels as (height, width, in, out).

    Raises:
      UserError: the file cannot be read, or a tensor is missing, has another shape or is not
        finite.
    """
    return prepared(tensor_files.read_tensors(path), str(path))


def prepared(tensors: Weights, source: str) -> dict[str, np.ndarray]:
    """See `load`; `source` names the file in messages."""
    weights = {}
    for name, shape in shapes().items():
        value = tensor_files.weights(tensors, name, shape, source)
        weights[name] = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value
    return weights


def features(weights: Weights, images: jax.Array) -> jax.Array:
    """The 2048 features (N, 2048) of images in [-1, 1], (N, H, W, 3), of any size.

    Images are resized bilinearly to 299 x 299, without a smoothing filter where they shrink.
    """
    shape = (len(images), SIDE, SIDE, images.shape[-1])
    x = jax.image.resize(images, shape, "linear", antialias=False)
    for layer in STEM:
        x = _max_pool(x, 2, 0) if layer is None else _layer(weights, layer.name, layer, x)
    for block in BLOCKS:
        x = _block(weights, block, x)
    return jnp.mean(x, axis=(1, 2))


def _block(weights: Weights, block: Block, x: jax.Array) -> jax.Array:
    joined = []
    for branch in block.branches:
        y = x
        for layer in branch:
            if isinstance(layer, Layer):
                y = _layer(weights, f"{block.name}.{layer.name}", layer, y)
            else:
                both = [_layer(weights, f"{block.name}.{one.name}", one, y) for one in layer]
                y = jnp.concatenate(both, axis=-1)
        joined.append(y)
    if block.pool == "reduce":
        joined.append(_max_pool(x, 2, 0))
    else:
        pooled = _mean_pool(x) if block.pool == "mean" else _max_pool(x, 1, 1)
        layer = Layer("branch_pool", block.pooled)
        joined.append(_layer(weights, f"{block.name}.branch_pool", layer, pooled))
    return jnp.concatenate(joined, axis=-1)


def _layer(weights: Weights, name: str, layer: Layer, x: jax.Array) -> jax.Array:
    kernel, scale, shift, mean, variance = (weights[f"{name}.{part}"] for part in _PARTS)
    padding = [(side, side) for side in layer.padding]
    x = jax.lax.conv_general_dilated(
        x, kernel, (layer.stride,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    scale = scale / np.sqrt(variance + EPSILON)
    return jax.nn.relu(x * scale + (shift - mean * scale))


def _max_pool(x: jax.Array, stride: int, padding: int) -> jax.Array:
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    window = (1, 3, 3, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window, border)


def _mean_pool(x: jax.Array) -> jax.Array:
    """Means over 3x3 pixels; at the border over those that there are."""
    border = ((0, 0), (1, 1), (1, 1), (0, 0))

    def total(y):
        return jax.lax.reduce_window(y, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), border)

    return total(x) / total(jnp.ones((1, *x.shape[1:3], 1), x.dtype))


def _layers() -> Iterator[tuple[str, Layer, int]]:
    """(full name, layer, input channels) of every convolution, in order."""
    channels = 3
    for layer in STEM:
        if layer is not None:
            yield layer.name, layer, channels
            channels = layer.outputs
    for block in BLOCKS:
        joined = 0
        for branch in block.branches:
            inputs = channels
            for layer in branch:
                together = (layer,) if isinstance(layer, Layer) else layer
                for one in together:
                    yield f"{block.name}.{one.name}", one, inputs
                inputs = sum(one.outputs for one in together)
            joined += inputs
        if block.pool == "reduce":
            joined += channels
        else:
            yield f"{block.name}.branch_pool", Layer("branch_pool", block.pooled), channels
            joined += block.pooled
        channels = joined
