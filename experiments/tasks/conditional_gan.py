"""Label-to-image networks: a generator and a discriminator, each with its own optimizer.

The order of a step is that of Park et al., "Semantic Image Synthesis with Spatially-Adaptive
Normalization" (SPADE): one step of the generator, then one step of the discriminator on a fresh
forward pass of the new generator. Two optimizers, not one over both trees: zero gradients would not
freeze the other side, because momentum and weight decay would still move it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.tasks import scores
from experiments.training.networks import Network, gradient_step
from experiments.training.task import Batch, Headline, Keys, Sums

State = dict[str, Network]
Outputs = Sequence[Sequence[jax.Array]]  # by scale: the features of each layer, the scores last


@dataclasses.dataclass(frozen=True, eq=False)
class ConditionalGan:
    """A generator of images from label maps, against a discriminator of pairs of both.

    The examples of a dataset are the real images, its labels the label maps (N, H, W).

    Attributes:
      generator: called as `generator(condition, train)` with the random streams "latent" and
        "dropout"; makes images in [-1, 1], (N, H, W, C).
      discriminator: called as `discriminator(images, condition, train)`; returns for each of its
        scales the outputs of its layers, of which the last are scores of patches.
      example_shape: (H, W, C) of an image.
      condition: labels to what both networks see of them, such as one-hot maps.
      generator_optimizer: from the gradient of the generator's loss to an update.
      discriminator_optimizer: the same of the discriminator.
      schedules: their learning rates, for the record.
      features: images in [-1, 1] to features (N, d), whose Frechet distance is the headline.
      feature_matching: weight of the L1 distance between the discriminator's features of real and
        generated images.
      perceptual: (generated, real) to a loss that is added to the generator's, or None.
      augment: (key, uint8 images, labels) to changed ones.
    """

    generator: nn.Module
    discriminator: nn.Module
    example_shape: tuple[int, ...]
    condition: Callable[[jax.Array], jax.Array]
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    schedules: dict[str, optax.Schedule]
    features: Callable[[jax.Array], jax.Array]
    feature_matching: float = 10.0
    perceptual: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    augment: Callable[..., tuple[jax.Array, jax.Array]] = lambda key, images, labels: (
        images,
        labels,
    )

    headline = Headline("frechet_distance", higher_is_better=False)
    training_only = ("generator_loss", "discriminator_loss", "feature_matching")

    def init(self, rng: jax.Array) -> State:
        images = jnp.zeros((1, *self.example_shape), jnp.float32)
        condition = self.condition(jnp.zeros((1, *self.example_shape[:2]), jnp.int32))
        first, second, latent = jax.random.split(rng, 3)

        def variables(first, second, latent):
            keys = {"params": first, "latent": latent, "dropout": latent}
            return (
                self.generator.init(keys, condition, train=False),
                self.discriminator.init(second, images, condition, train=False),
            )

        generator, discriminator = jax.jit(variables)(first, second, latent)
        return {
            "generator": Network.create(generator, self.generator_optimizer),
            "discriminator": Network.create(discriminator, self.discriminator_optimizer),
        }

    def train_step(self, state: State, batch: Batch, rng: Keys) -> tuple[State, Sums]:
        images, labels = self.augment(rng.augmentation, *batch)
        real, condition = _scaled(images), self.condition(labels)
        count = len(images)
        # Fresh noise for each of the two forward passes of the generator.
        noise, noise_again = jax.random.split(rng.latent)

        def generator_loss(params):
            fake, collections = self._generate(
                state["generator"], params, condition, noise, rng.dropout
            )
            outputs, _ = self._judge(
                state["discriminator"], state["discriminator"].params, fake, real, condition
            )
            of_fake, of_real = _halves(outputs)
            adversarial = -_mean_over_scales(jnp.mean(scale[-1]) for scale in of_fake)
            matching = _mean_over_scales(
                sum(
                    jnp.mean(jnp.abs(a - jax.lax.stop_gradient(b)))
                    for a, b in zip(fakes[:-1], reals[:-1], strict=True)
                )
                for fakes, reals in zip(of_fake, of_real, strict=True)
            )
            loss = adversarial + self.feature_matching * matching
            if self.perceptual is not None:
                loss = loss + self.perceptual(fake, real)
            return loss, (collections, (loss, matching))

        generator, (loss_of_generator, matching) = gradient_step(
            state["generator"], self.generator_optimizer, generator_loss
        )
        fake, collections = self._generate(
            generator, generator.params, condition, noise_again, rng.dropout
        )
        generator = generator.replace(collections=collections)
        fake = jax.lax.stop_gradient(fake)

        def discriminator_loss(params):
            outputs, collections = self._judge(
                state["discriminator"], params, fake, real, condition
            )
            of_fake, of_real = _halves(outputs)
            # Hinge loss: scores of real patches above 1, of generated ones below -1.
            loss = _mean_over_scales(
                jnp.mean(nn.relu(1 - reals[-1])) + jnp.mean(nn.relu(1 + fakes[-1]))
                for fakes, reals in zip(of_fake, of_real, strict=True)
            )
            return loss, (collections, loss)

        discriminator, loss_of_discriminator = gradient_step(
            state["discriminator"], self.discriminator_optimizer, discriminator_loss
        )
        sums = {
            "count": jnp.int32(count),
            "generator_loss": loss_of_generator * count,
            "discriminator_loss": loss_of_discriminator * count,
            "feature_matching": matching * count,
        }
        return {"generator": generator, "discriminator": discriminator}, sums

    def evaluation_step(self, state: State, batch: Batch, mask: jax.Array, rng: Keys) -> Sums:
        fake = self.generate(state, batch.labels, rng)
        return {
            "fake": scores.moments(self.features(fake), mask),
            "real": scores.moments(self.features(_scaled(batch.examples)), mask),
        }

    def metrics(self, sums: Sums) -> dict[str, float]:
        if "fake" in sums:
            if not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(sums)):
                return {"frechet_distance": float("nan")}
            distance = scores.frechet_distance_of_moments(sums["fake"], sums["real"])
            return {"frechet_distance": float(distance)}
        return {name: float(sums[name] / sums["count"]) for name in self.training_only}

    def generate(self, state: State, labels: jax.Array, rng: Keys) -> jax.Array:
        """Images in [-1, 1] for label maps, as the generator makes them in evaluation."""
        return self.generator.apply(
            state["generator"].variables,
            self.condition(labels),
            train=False,
            rngs={"latent": rng.latent},
        )

    def _generate(self, network: Network, params: Any, condition, latent, dropout):
        return self.generator.apply(
            {"params": params, **network.collections},
            condition,
            train=True,
            mutable=list(network.collections),
            rngs={"latent": latent, "dropout": dropout},
        )

    def _judge(self, network: Network, params: Any, fake, real, condition):
        """Outputs for generated and real images as one batch, so that they share statistics."""
        return self.discriminator.apply(
            {"params": params, **network.collections},
            jnp.concatenate([fake, real]),
            jnp.concatenate([condition, condition]),
            train=True,
            mutable=list(network.collections),
        )


def _scaled(images: jax.Array) -> jax.Array:
    """uint8 to [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def _halves(outputs: Outputs) -> tuple[Outputs, Outputs]:
    """The outputs for the first and for the second half of a batch."""
    fake = [[x[: len(x) // 2] for x in scale] for scale in outputs]
    real = [[x[len(x) // 2 :] for x in scale] for scale in outputs]
    return fake, real


def _mean_over_scales(values) -> jax.Array:
    return jnp.mean(jnp.stack(list(values)))
