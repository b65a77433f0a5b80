"""Typical user code, for pyright: every line here is correct and must be accepted."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import channel_grad

# Transformations, with numbers, arrays and schedules.
optimizer: optax.GradientTransformation = optax.chain(
    channel_grad.scale_by_sobolev(lam=1.0, l2_weight=0.5, discretization="exact"),
    optax.add_decayed_weights(5e-4),
    optax.sgd(0.1, momentum=0.9),
)
schedule = optax.linear_schedule(2.0, 0.5, transition_steps=1000)
scheduled = channel_grad.scale_by_sobolev(lam=schedule, method="prefix")
channel_grad.scale_by_reweighted_l2(lam=jnp.asarray(1.0), form="equation", method="auto")
channel_grad.scale_by_laplacian_smoothing(sigma=lambda count: 1.0, order=2, method="fft")
injected = optax.inject_hyperparams(channel_grad.scale_by_sobolev)(lam=schedule)

# Metrics: keyword and positional arguments, fields, methods.
sobolev = channel_grad.Sobolev(lam=1.0, l2_weight=np.float32(0.0), discretization="riemann")
reweighted = channel_grad.ReweightedL2(0.7, form="equation")
laplacian = channel_grad.LaplacianSmoothing(sigma=0.5, order=2)
metric: channel_grad.Metric = channel_grad.L2()
g: jax.Array = sobolev.gradient(np.ones((3, 3, 16, 32), np.float32), axis=-1)
g = reweighted.gradient(g, axis=(3, 2), method="dense")
product: jax.Array = laplacian.inner(g, jnp.ones((3, 3, 16, 32)))
kernel: jax.Array = metric.kernel(8)
order: int = laplacian.order
form: str = reweighted.form
by_name: type[channel_grad.Metric] = channel_grad.METRICS["sobolev"]
names: list[str] = list(channel_grad.METRICS)


# Axis specs.
def matrices(path: Any, leaf: Any) -> int | None:
    return -1 if leaf.ndim == 2 else None


spec: channel_grad.AxisSpec = channel_grad.output_axes.exclude(r"attention") | matrices
spec = channel_grad.flax_layout.stacked(0).output_axes.only("Scan") | channel_grad.output_axes
mine = channel_grad.Layout(kernel="filters", output=0, input=-1)
for axes in (spec, mine, mine.raster, channel_grad.haiku_layout, matrices, {"conv": -1}, (0, 1)):
    channel_grad.scale_by_metric(sobolev, axes=axes)


def train_step(params: optax.Params, state: optax.OptState, gradients: optax.Updates) -> Any:
    print(channel_grad.describe(params, axes=spec))
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state


version: str = channel_grad.__version__
