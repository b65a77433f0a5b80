"""The OptFlow regularizer for the filters of 3D convolutions, exact and differentiable, in JAX.

It measures how badly a smooth motion explains the frames of a spatiotemporal filter ("3D ConvNets
with Optical Flow Based Regularization"):

    >>> import jax, optflow_jax
    >>> kernel = jax.random.normal(jax.random.key(0), (3, 5, 5, 3, 8))  # (T, H, W, in, out)
    >>> optflow_jax.regularizer(kernel, channels="rgb").shape
    ()
"""

from optflow_jax import penalties
from optflow_jax._kernels import collapse, first_convolution, regularizer, tree_regularizer
from optflow_jax._objective import loss
from optflow_jax._regularizer import Flow, cost, cost_forward, flow

__version__ = "0.2.0"

__all__ = [
    "Flow",
    "collapse",
    "cost",
    "cost_forward",
    "first_convolution",
    "flow",
    "loss",
    "penalties",
    "regularizer",
    "tree_regularizer",
]
