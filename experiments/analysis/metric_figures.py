"""What each metric does to a gradient: its kernel, and one gradient before and after.

    python -m experiments.analysis.metric_figures --out=DIR

Writes metrics.png and metrics.pdf: above, the circular kernels (Channel-directed gradients, figure
2); below, the gradient of a real loss, a first step of ResNet-56 on digits, along the output
channels of one convolution kernel. The README's figure is made with --out=docs.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import channel_grad
from experiments import data
from experiments.cli import main as command
from experiments.data.normalize import normalizer
from experiments.figures import metric_figures as figures
from experiments.figures.files import save
from experiments.models.resnet import ResNet

CHANNELS = 64
METRICS = {
    figures.BASELINE: channel_grad.L2(),
    "re-weighted L2": channel_grad.ReweightedL2(),
    "Sobolev": channel_grad.Sobolev(),
    "Sobolev, l2_weight = 0": channel_grad.Sobolev(l2_weight=0.0),
    "Laplacian smoothing": channel_grad.LaplacianSmoothing(),
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "figures"}
    flags.DEFINE_string("out", "figures/metrics", "Folder for metrics.png and .pdf.", **where)


def main(values: flags.FlagValues) -> None:
    """Draws the figure."""
    out = command.out_folder(values)
    kernels = {name: np.asarray(m.kernel(CHANNELS)) for name, m in METRICS.items()}
    gradient = first_gradient()
    lines = {
        name: np.asarray(metric.gradient(gradient, axis=-1))[1, 1, 0]
        for name, metric in METRICS.items()
    }
    save(figures.metrics(kernels, lines), out / "metrics.png")
    print(f"in {out}: metrics.pdf  metrics.png")


def first_gradient() -> jax.Array:
    """The gradient of the last convolution kernel, (3, 3, 64, 64), on 64 digits."""
    digits = data.load("digits")
    model = ResNet(depth=56)
    images = normalizer(digits.train)(jnp.asarray(digits.train.examples[:64]))
    labels = jnp.asarray(digits.train.labels[:64])
    variables = jax.jit(lambda k, x: model.init(k, x, train=False))(jax.random.key(0), images[:1])

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, images, train=True, mutable=["batch_stats"]
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return jax.jit(jax.grad(loss))(variables["params"])["BasicBlock_26"]["Conv_1"]["kernel"]


if __name__ == "__main__":
    command.run(main, define)
