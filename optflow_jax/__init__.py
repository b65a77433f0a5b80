"""The OptFlow regularizer for the filters of 3D convolutions, exact and differentiable, in JAX.

"3D ConvNets with Optical Flow Based Regularization" asks of a spatiotemporal filter that its
frames be well explained by a smooth motion:

    import optflow_jax

    def loss_fn(params):
        kernel = params["Conv_0"]["kernel"]  # (T, H, W, in, out)
        return data_loss(params) + 1e-2 * optflow_jax.regularizer(kernel, channels="rgb")
"""

from optflow_jax._kernels import collapse, first_convolution, regularizer, tree_regularizer
from optflow_jax._objective import loss
from optflow_jax._regularizer import Flow, cost, cost_forward, flow

__all__ = [
    "Flow",
    "collapse",
    "cost",
    "cost_forward",
    "first_convolution",
    "flow",
    "loss",
    "regularizer",
    "tree_regularizer",
]
