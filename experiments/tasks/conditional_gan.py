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
from experiments.training.task import Batch, Headline, Keys, Rows, Sums

State = dict[str, Network]
Outputs = Sequence[Sequence[jax.Array]]  # by scale: the features of each layer, the scores last
NETWORKS = ("generator", "discriminator")


@dataclasses.dataclass(frozen=True, eq=False)
class Segmenter:
    """A network that labels pixels, to ask whether generated images show what they should.

    Attributes:
      predict: images in [-1, 1] to classes, int32 (N, H, W).
      truth: labels of the dataset to the classes that `predict` should find.
      num_classes: number of these classes.
      ignore: value of `truth` that does not count.
    """

    predict: Callable[[jax.Array], jax.Array]
    truth: Callable[[jax.Array], jax.Array]
    num_classes: int
    ignore: int = 255


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
      colors: uint8 (labels, 3), how a label map is shown.
      final_train_examples: the training examples whose distance is measured at the end. A distance
        falls with the number of examples, so it should be the number of test examples.
      evaluation_batch: the most examples of an evaluation batch; None for the engine's limits.
      headline: the name of that distance, such as "fid" in the features that FID is defined by.
      reference: returns features of real images that no evaluated split has, float (M, d); their
        distance to the real images of a split of at most M is the floor of the headline. Or None.
      segmenter: labels generated and real images, for a mean IoU of both, or None.
      feature_matching: weight of the L1 distance between the discriminator's features of real and
        generated images.
      perceptual: (generated, real) to a loss that is added to the generator's, or None.
      augment: (key, uint8 images, labels) to changed ones.
      initialize: (key, shapes of the variables of a network) to variables. Default: what the
        modules draw themselves.
    """

    generator: nn.Module
    discriminator: nn.Module
    example_shape: tuple[int, ...]
    condition: Callable[[jax.Array], jax.Array]
    generator_optimizer: optax.GradientTransformation
    discriminator_optimizer: optax.GradientTransformation
    schedules: dict[str, optax.Schedule]
    features: Callable[[jax.Array], jax.Array]
    colors: np.ndarray
    final_train_examples: int
    evaluation_batch: int | None = None
    headline: Headline = Headline("frechet_distance", higher_is_better=False)
    reference: Callable[[], np.ndarray] | None = None
    segmenter: Segmenter | None = None
    feature_matching: float = 10.0
    perceptual: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    augment: Callable[..., tuple[jax.Array, jax.Array]] = lambda key, images, labels: (
        images,
        labels,
    )
    initialize: Callable[[jax.Array, Any], Any] | None = None

    training_only = ("generator_loss", "discriminator_loss", "feature_matching")
    picture_names = ("label map", "generated", "real")

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

        if self.initialize is None:
            generator, discriminator = jax.jit(variables)(first, second, latent)
        else:
            shapes = jax.eval_shape(variables, first, second, latent)
            keys = (first, second)
            generator, discriminator = map(self.initialize, keys, shapes)
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
            outputs, judged = self._judge(
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
            return loss, (collections, (loss, matching, judged))

        generator, (loss_of_generator, matching, judged) = gradient_step(
            state["generator"], self.generator_optimizer, generator_loss
        )
        fake, collections = self._generate(
            generator, generator.params, condition, noise_again, rng.dropout
        )
        generator = generator.replace(collections=collections)
        fake = jax.lax.stop_gradient(fake)
        # Each forward pass is a step of the power iterations of spectral normalisation.
        discriminator = state["discriminator"].replace(collections=dict(judged))

        def discriminator_loss(params):
            outputs, collections = self._judge(discriminator, params, fake, real, condition)
            of_fake, of_real = _halves(outputs)
            # Hinge loss: scores of real patches above 1, of generated ones below -1.
            loss = _mean_over_scales(
                jnp.mean(nn.relu(1 - reals[-1])) + jnp.mean(nn.relu(1 + fakes[-1]))
                for fakes, reals in zip(of_fake, of_real, strict=True)
            )
            return loss, (collections, loss)

        discriminator, loss_of_discriminator = gradient_step(
            discriminator, self.discriminator_optimizer, discriminator_loss
        )
        sums = {
            "count": jnp.int32(count),
            "generator_loss": loss_of_generator * count,
            "discriminator_loss": loss_of_discriminator * count,
            "feature_matching": matching * count,
            "broken": _broken(generator, discriminator),
        }
        return {"generator": generator, "discriminator": discriminator}, sums

    def evaluation_step(self, state: State, batch: Batch, mask: jax.Array, rng: Keys) -> Sums:
        # As the pixels of a picture, which real images are, too.
        fake = _scaled(_pixels(self.generate(state, batch.labels, rng)))
        real = _scaled(batch.examples)
        kept = {
            "fake": Rows(self.features(fake), mask),
            "real": Rows(self.features(real), mask),
        }
        if self.segmenter is None:
            return kept
        truth = self.segmenter.truth(batch.labels).astype(jnp.int32)
        truth = jnp.where(mask[:, None, None], truth, self.segmenter.ignore)

        def confusion(images):
            return scores.confusion_matrix(
                truth,
                self.segmenter.predict(images),
                self.segmenter.num_classes,
                self.segmenter.ignore,
            )

        return kept | {"labelled_fake": confusion(fake), "labelled_real": confusion(real)}

    def metrics(self, sums: Sums) -> dict[str, float]:
        if "fake" in sums:
            return self._evaluated(sums)
        broken = {
            f"step of the {name}": float("nan")
            for name in NETWORKS
            if np.isnan(sums["broken"][name])
        }
        return broken or {name: float(sums[name] / sums["count"]) for name in self.training_only}

    def pictures(self, state: State, batch: Batch, rng: Keys) -> tuple[jax.Array, ...]:
        """Label maps in their colors, what is generated for them, and the real images."""
        generated = _pixels(self.generate(state, batch.labels, rng))
        maps = jnp.asarray(self.colors)[batch.labels.astype(jnp.int32)]
        shape = maps.shape
        return tuple(jnp.broadcast_to(x, shape) for x in (maps, generated, batch.examples))

    def generate(self, state: State, labels: jax.Array, rng: Keys) -> jax.Array:
        """Images in [-1, 1] for label maps, as the generator makes them in evaluation."""
        return self.generator.apply(
            state["generator"].variables,
            self.condition(labels),
            train=False,
            rngs={"latent": rng.latent},
        )

    def _evaluated(self, kept: Sums) -> dict[str, float]:
        fake, real, name = kept["fake"], kept["real"], self.headline.name
        if not (np.isfinite(fake).all() and np.isfinite(real).all()):
            return {name: float("nan")}
        values = {name: scores.frechet_distance(fake, real)}
        if self.reference is not None and len(reference := self.reference()) >= len(real):
            values[f"{name}_floor"] = scores.frechet_distance(reference[: len(real)], real)
        if self.segmenter is not None:
            values["mean_iou"] = scores.mean_iou(kept["labelled_fake"])
            values["mean_iou_of_real"] = scores.mean_iou(kept["labelled_real"])
        return values

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


def _broken(generator: Network, discriminator: Network) -> dict[str, jax.Array]:
    """NaN for the network whose step broke first, by the norms of both; 0 otherwise.

    In the step after, each network's losses carry NaN into the other.
    """
    of_generator, of_discriminator = (
        jnp.isfinite(generator.norms),
        jnp.isfinite(discriminator.norms),
    )
    had = [of_generator[1], of_discriminator[1]]  # the norms of the parameters before the step
    has = [jnp.all(of_generator), jnp.all(of_discriminator)]
    first = ~has[0] & had[1]
    second = jnp.where(had[1], ~has[1] & has[0], had[0])
    return {
        name: jnp.where(broken, jnp.nan, 0.0)
        for name, broken in zip(NETWORKS, (first, second), strict=True)
    }


def _scaled(images: jax.Array) -> jax.Array:
    """uint8 to [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def _pixels(images: jax.Array) -> jax.Array:
    """[-1, 1] to uint8."""
    return jnp.clip(jnp.round((images + 1) * 127.5), 0, 255).astype(jnp.uint8)


def _halves(outputs: Outputs) -> tuple[Outputs, Outputs]:
    """The outputs for the first and for the second half of a batch."""
    fake = [[x[: len(x) // 2] for x in scale] for scale in outputs]
    real = [[x[len(x) // 2 :] for x in scale] for scale in outputs]
    return fake, real


def _mean_over_scales(values) -> jax.Array:
    return jnp.mean(jnp.stack(list(values)))
