"""A task of a kind that the engine has never seen: an autoencoder with two optimizers.

A linear encoder and decoder of images, each with its own optimizer; the headline is the mean
squared error, lower is better. The state is a plain dict, without the engine's `Network`.
"""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from experiments.cli.training import Experiment
from experiments.training.config import Length
from experiments.training.settings import Config, composed, setting
from experiments.training.task import Headline


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig(Config):
    width: int = setting(8, "Width of the code.", minimum=1)
    rate: float = setting(1e-3, "Learning rate of the encoder.", above=0.0, search=(1e-5, 1e-2))
    length: Length = composed(Length)


class Autoencoder:
    headline = Headline("mse", higher_is_better=False)

    def __init__(self, config, size):
        self.shapes = {"encoder": (size, config.width), "decoder": (config.width, size)}
        self.schedules = {"encoder_rate": optax.constant_schedule(config.rate)}
        self.optimizers = {"encoder": optax.adam(config.rate), "decoder": optax.sgd(0.1)}

    def init(self, rng):
        params = {k: 0.01 * jax.random.normal(rng, shape) for k, shape in self.shapes.items()}
        return {k: (p, self.optimizers[k].init(p)) for k, p in params.items()}

    def errors(self, params, examples):
        x = examples.reshape(len(examples), -1) / 255.0
        return jnp.mean((x @ params["encoder"] @ params["decoder"] - x) ** 2, axis=1)

    def train_step(self, state, batch, rng):
        params = {k: p for k, (p, _) in state.items()}
        loss = lambda params: jnp.mean(self.errors(params, batch.examples))  # noqa: E731
        mse, gradient = jax.value_and_grad(loss)(params)
        updates = {k: self.optimizers[k].update(gradient[k], state[k][1]) for k in state}
        new = {k: (optax.apply_updates(params[k], u), s) for k, (u, s) in updates.items()}
        return new, {"error": mse, "count": 1}

    def evaluation_step(self, state, batch, mask, rng):
        errors = self.errors({k: p for k, (p, _) in state.items()}, batch.examples)
        return {"error": jnp.sum(jnp.where(mask, errors, 0.0)), "count": jnp.sum(mask)}

    def metrics(self, sums):
        return {"mse": float(sums["error"] / sums["count"])}


def build(config, dataset):
    return Autoencoder(config, dataset.train.examples[0].size), config.length


PRESETS = {"quick": {"batch_size": 32, "epochs": 0.5, "evaluate_every": 0.2}}
EXPERIMENT = Experiment("autoencoder", AutoencoderConfig, PRESETS, ("digits",), "cifar10", build)
