"""Initial variables of networks with many kernels, drawn in one piece.

Flax draws every kernel by itself. For a network of eighty kernels the compiler then takes longer
for the drawing than for a training step.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

_ONES = ("scale", "var")  # of normalizations


def he_normal_variables(model: nn.Module, shape: tuple[int, ...], key: jax.Array) -> dict:
    """Variables with normal kernels of variance 2 / fan_in, as of He et al. (2015).

    The fan-in is the product of all axes of a kernel but the last. Scales and variances of
    normalizations are ones, everything else is zeros.

    Args:
      model: called as `model(examples, train)`.
      shape: of an example, without the batch.
      key: fixes what is drawn.

    Returns:
      What `model.init` returns, in NumPy arrays, float32.

    Example:
      >>> import flax.linen as nn
      >>> class Model(nn.Module):
      ...     @nn.compact
      ...     def __call__(self, x, train):
      ...         return nn.Dense(1000)(x)
      >>> params = he_normal_variables(Model(), (50,), jax.random.key(0))["params"]["Dense_0"]
      >>> print(params["kernel"].shape, params["kernel"].std().round(2), params["bias"].max())
      (50, 1000) 0.2 0.0
    """
    shapes = jax.eval_shape(lambda: model.init(key, jnp.zeros((1, *shape)), train=False))
    leaves = flatten_dict(shapes)
    kernels = [path for path in leaves if path[-1] == "kernel"]
    ends = np.cumsum([leaves[path].size for path in kernels])
    drawn = np.asarray(jax.random.normal(key, (ends[-1],), jnp.float32))
    variables = {
        path: (np.ones if path[-1] in _ONES else np.zeros)(leaf.shape, np.float32)
        for path, leaf in leaves.items()
    }
    for path, part in zip(kernels, np.split(drawn, ends[:-1]), strict=True):
        fan_in = np.prod(leaves[path].shape[:-1])
        variables[path] = part.reshape(leaves[path].shape) * np.float32(np.sqrt(2 / fan_in))
    return unflatten_dict(variables)
