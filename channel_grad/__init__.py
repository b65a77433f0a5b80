"""Channel-directed gradients: other metrics on gradients, as optax transformations.

Source: "Channel-Directed Gradients for Optimization of Convolutional Neural Networks". In front of
any optimizer:

    optimizer = optax.chain(channel_grad.scale_by_sobolev(), optax.sgd(0.1, momentum=0.9))
"""

from channel_grad._axes import (
    AxisSpec,
    Layout,
    all_kernels,
    equinox_layout,
    flax_layout,
    haiku_layout,
    input_axes,
    nnx_layout,
    output_axes,
    raster,
    torch_layout,
)
from channel_grad._circulant import (
    GreenCirculant,
    SpectralCirculant,
    apply_circulant,
)
from channel_grad._metrics import (
    L2,
    LaplacianSmoothing,
    Metric,
    ReweightedL2,
    Sobolev,
)
from channel_grad._transforms import (
    scale_by_laplacian_smoothing,
    scale_by_metric,
    scale_by_reweighted_l2,
    scale_by_sobolev,
)

__all__ = [
    # metrics
    "L2",
    "LaplacianSmoothing",
    "Metric",
    "ReweightedL2",
    "Sobolev",
    # optax transformations
    "scale_by_laplacian_smoothing",
    "scale_by_metric",
    "scale_by_reweighted_l2",
    "scale_by_sobolev",
    # which axis of which leaf
    "AxisSpec",
    "Layout",
    "all_kernels",
    "equinox_layout",
    "flax_layout",
    "haiku_layout",
    "input_axes",
    "nnx_layout",
    "output_axes",
    "raster",
    "torch_layout",
    # the operator behind the metrics
    "GreenCirculant",
    "SpectralCirculant",
    "apply_circulant",
]
