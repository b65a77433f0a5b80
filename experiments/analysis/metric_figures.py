"""What each metric does to a gradient: its kernel, and one gradient before and after.

    python -m experiments.analysis.metric_figures --out=docs

Writes metrics.png: on the left the circular kernels (Channel-directed gradients, figure 2), on the
right the gradient of a real loss, a first step of ResNet-56 on digits, along the output channels
of one convolution kernel.
"""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import channel_grad
from experiments import data
from experiments.cli import main as cli_main
from experiments.figures import metric_figures as figures
from experiments.figures.training import save
from experiments.models.resnet import ResNet
from experiments.training.preprocess import normalizer

OUT = flags.DEFINE_string("out", "docs", "Folder for metrics.png.")
CHANNELS = 64
METRICS = {
    "L2": channel_grad.L2(),
    "re-weighted L2": channel_grad.ReweightedL2(),
    "Sobolev": channel_grad.Sobolev(),
    "Sobolev, l2_weight = 0": channel_grad.Sobolev(l2_weight=0.0),
    "Laplacian smoothing": channel_grad.LaplacianSmoothing(),
}


def first_gradient() -> jax.Array:
    """The gradient of the last convolution kernel, (3, 3, 64, 64), on 64 digits."""
    digits = data.load("digits", own="cifar10")
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


def main() -> None:
    out = pathlib.Path(OUT.value)
    out.mkdir(parents=True, exist_ok=True)
    kernels = {name: np.asarray(m.kernel(CHANNELS)) for name, m in METRICS.items()}
    gradient = first_gradient()
    lines = {
        name: np.asarray(metric.gradient(gradient, axis=-1))[1, 1, 0]
        for name, metric in METRICS.items()
    }
    save(figures.metrics(kernels, lines), out / "metrics.png")
    print(f"in {out}: metrics.png")


if __name__ == "__main__":
    cli_main.run(main)
