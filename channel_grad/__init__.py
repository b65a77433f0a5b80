"""Channel-directed gradients: other metrics on gradients, as optax transformations.

Source: "Channel-Directed Gradients for Optimization of Convolutional Neural Networks". In front of
any optimizer:

    optimizer = optax.chain(channel_grad.scale_by_sobolev(), optax.sgd(0.1, momentum=0.9))

By default the gradients of Flax convolution kernels change, and no others; presets for other
libraries and layers go in as ``axes``. What a spec does with the leaves of a model:

    print(channel_grad.describe(params, axes=channel_grad.haiku_layout))
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from channel_grad import _circulant, correlation
from channel_grad._axes import AxisSpec
from channel_grad._describe import Description, describe
from channel_grad._layouts import (
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
from channel_grad._learned import LearnedMetricState, scale_by_learned_metric
from channel_grad._metrics import (
    L2,
    METRICS,
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

__version__ = "0.2.0"

__all__ = [
    # metrics
    "L2",
    "METRICS",
    "LaplacianSmoothing",
    "Metric",
    "ReweightedL2",
    "Sobolev",
    # optax transformations
    "LearnedMetricState",
    "scale_by_laplacian_smoothing",
    "scale_by_learned_metric",
    "scale_by_metric",
    "scale_by_reweighted_l2",
    "scale_by_sobolev",
    # which axis of which leaf
    "AxisSpec",
    "Description",
    "Layout",
    "all_kernels",
    "describe",
    "equinox_layout",
    "flax_layout",
    "haiku_layout",
    "input_axes",
    "nnx_layout",
    "output_axes",
    "raster",
    "torch_layout",
    # the correlation of a trained kernel's filters
    "correlation",
]

# Public in 0.1.0: the operator behind the metrics, which is now an implementation detail.
_PRIVATE = ("GreenCirculant", "SpectralCirculant", "apply_circulant")

if not TYPE_CHECKING:  # type checkers do not see the private names

    def __getattr__(name: str) -> Any:
        if name in _PRIVATE:
            warnings.warn(
                f"channel_grad.{name} is private since 0.2.0 and will go; "
                "Metric.gradient and Metric.kernel are its public face",
                DeprecationWarning,
                stacklevel=2,
            )
            return getattr(_circulant, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
