"""A conditional GAN of a few pixels: the order of its steps, its losses, its headline."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.data.dataset import Dataset, Split
from experiments.tasks import scores
from experiments.tasks.conditional_gan import ConditionalGan, Segmenter
from experiments.training import finite
from experiments.training.execution import Executor, batches
from experiments.training.networks import networks
from experiments.training.state import evaluation_keys, step_keys
from experiments.training.task import Batch
from tests.experiments.small import DEVICE, HOST

CLASSES = 3
COLORS = np.array([[1, 2, 3], [40, 50, 60], [255, 0, 128]], np.uint8)


class Generator(nn.Module):
    @nn.compact
    def __call__(self, condition, train):
        noise = jax.random.normal(self.make_rng("latent"), condition.shape)
        x = nn.Conv(4, (3, 3))(jnp.concatenate([condition, noise], axis=-1))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return jnp.tanh(nn.Conv(1, (1, 1))(nn.relu(x)))


class Discriminator(nn.Module):
    @nn.compact
    def __call__(self, images, condition, train):
        x = jnp.concatenate([images, condition], axis=-1)
        scales = []
        for stride in (1, 2):
            features = nn.leaky_relu(nn.Conv(4, (3, 3), strides=stride)(x), 0.2)
            scales.append([features, nn.Conv(1, (3, 3))(features)])
        return scales


def pictures(count, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, (count, 4, 4)).astype(np.int32)
    noise = rng.integers(0, 20, (count, 4, 4, 1))
    return Split((80 * labels[..., None] + noise).astype(np.uint8), labels)


@pytest.fixture(scope="module")
def dataset():
    return Dataset("pictures", pictures(12, 0), pictures(9, 1), ("a", "b", "c"), "")


def make(**options):
    optimizers = optax.sgd(1e-2, momentum=0.9), optax.sgd(4e-2, momentum=0.9)
    return ConditionalGan(
        generator=Generator(),
        discriminator=Discriminator(),
        example_shape=(4, 4, 1),
        condition=lambda labels: jax.nn.one_hot(labels, CLASSES),
        generator_optimizer=optimizers[0],
        discriminator_optimizer=optimizers[1],
        schedules={"generator_rate": lambda step: 1e-2, "discriminator_rate": lambda step: 4e-2},
        features=lambda images: images.reshape(len(images), -1)[:, :5],
        colors=COLORS,
        final_train_examples=9,
        **options,
    )


def test_one_step_is_a_generator_step_and_then_a_discriminator_step(dataset):
    task = make(feature_matching=2.0)
    state = task.init(jax.random.key(0))
    batch = Batch(jnp.asarray(dataset.train.examples[:4]), jnp.asarray(dataset.train.labels[:4]))
    keys = step_keys(0, jnp.int32(0))
    new, sums = jax.jit(task.train_step)(state, batch, keys)

    # By hand, with optax alone.
    first, second = jax.random.split(keys.latent)
    real = batch.examples / 127.5 - 1
    condition = jax.nn.one_hot(batch.labels, CLASSES)
    generator, discriminator = state["generator"], state["discriminator"]

    def generate(params, collections, key):
        variables = {"params": params, **collections}
        rngs = {"latent": key}
        return task.generator.apply(
            variables, condition, train=True, mutable=["batch_stats"], rngs=rngs
        )

    def judge(params, images):
        return task.discriminator.apply({"params": params}, images, condition, train=True)

    def generator_loss(params):
        fake, changed = generate(params, generator.collections, first)
        loss = 0.0
        for of_fake, of_real in zip(
            judge(discriminator.params, fake), judge(discriminator.params, real), strict=True
        ):
            loss += -of_fake[-1].mean() + 2.0 * jnp.abs(of_fake[0] - of_real[0]).mean()
        return loss / 2, changed

    (loss, changed), gradient = jax.value_and_grad(generator_loss, has_aux=True)(generator.params)
    update, _ = task.generator_optimizer.update(gradient, generator.opt_state)
    params = optax.apply_updates(generator.params, update)
    fake, _ = generate(params, changed, second)

    def discriminator_loss(params):
        scales = zip(judge(params, fake), judge(params, real), strict=True)
        return sum(nn.relu(1 - r[-1]).mean() + nn.relu(1 + f[-1]).mean() for f, r in scales) / 2

    second_loss, gradient = jax.value_and_grad(discriminator_loss)(discriminator.params)
    update, _ = task.discriminator_optimizer.update(gradient, discriminator.opt_state)
    judged = optax.apply_updates(discriminator.params, update)

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(close, new["generator"].params, params)
    jax.tree.map(close, new["discriminator"].params, judged)
    found = task.metrics(jax.tree.map(np.asarray, sums))
    assert found["generator_loss"] == pytest.approx(float(loss), rel=1e-4)
    assert found["discriminator_loss"] == pytest.approx(float(second_loss), rel=1e-4)


def test_headline_is_the_frechet_distance_of_the_whole_split(dataset):
    task = make()
    engine = Executor(task, dataset, 4, HOST)
    state = engine.initial_state(1)
    state = engine.train(state, batches(1, 12, 4, 0), 1, 1)
    found = engine.evaluate(state, dataset.test)
    keys = evaluation_keys(0)
    fake = task.generate(state.state, jnp.asarray(dataset.test.labels), keys)
    fake = task.features(jnp.round((fake + 1) * 127.5) / 127.5 - 1)  # as pixels
    real = task.features(dataset.test.examples / 127.5 - 1)
    expected = scores.frechet_distance(np.asarray(fake), np.asarray(real))
    assert found == {"frechet_distance": pytest.approx(expected, rel=1e-5)}
    assert not task.headline.higher_is_better


def test_the_floor_is_the_distance_of_real_images_from_real_images(dataset):
    others = pictures(30, 2).examples.reshape(30, -1)[:, :5] / 127.5 - 1
    task = make(reference=lambda: others)
    real = dataset.test.examples.reshape(9, -1)[:, :5] / 127.5 - 1
    fake = np.random.default_rng(0).normal(size=(9, 5))
    found = task.metrics({"fake": fake, "real": real})
    assert found["frechet_distance_floor"] == pytest.approx(
        scores.frechet_distance(others[:9], real)
    )
    assert found["frechet_distance"] == pytest.approx(scores.frechet_distance(fake, real))
    # As many as there are real images, or none: a distance falls with the number of examples.
    assert "frechet_distance_floor" not in make(reference=lambda: others[:8]).metrics(
        {"fake": fake, "real": real}
    )


def test_what_a_segmenter_finds_in_generated_and_in_real_images(dataset):
    brightness = lambda images: jnp.round((images[..., 0] + 1) * 127.5 / 80).astype(int)  # noqa: E731
    segmenter = Segmenter(
        predict=lambda images: jnp.minimum(brightness(images), CLASSES - 1),
        truth=lambda labels: jnp.where(labels == 2, 255, labels),
        num_classes=CLASSES,
    )
    task = make(segmenter=segmenter)
    engine = Executor(task, dataset, 4, HOST)
    state = engine.initial_state(1)
    found = engine.evaluate(state, dataset.test)
    fake = task.generate(state.state, jnp.asarray(dataset.test.labels), evaluation_keys(0))
    for name, images in (
        ("mean_iou", fake),
        ("mean_iou_of_real", dataset.test.examples / 127.5 - 1),
    ):
        truth, predicted = dataset.test.labels, np.asarray(segmenter.predict(images))
        counted = truth != 2
        hit = [np.sum(counted & (truth == c) & (predicted == c)) for c in range(CLASSES)]
        union = [np.sum(counted & ((truth == c) | (predicted == c))) for c in range(CLASSES)]
        expected = np.mean([h / u for h, u in zip(hit, union, strict=True) if u])
        assert found[name] == pytest.approx(expected)


def test_pictures_are_label_maps_generated_and_real_images(dataset):
    task = make()
    engine = Executor(task, dataset, 4, HOST)
    state = engine.initial_state(1)
    made = engine.pictures(state)
    assert list(made) == ["label map", "generated", "real"]
    chosen = [0, 1, 2, 3, 4, 5, 6, 8]  # eight of nine, evenly
    labels = dataset.test.labels[chosen]
    np.testing.assert_array_equal(made["label map"], COLORS[labels])
    np.testing.assert_array_equal(made["real"], np.repeat(dataset.test.examples[chosen], 3, -1))
    fake = task.generate(state.state, jnp.asarray(labels), evaluation_keys(0))
    expected = np.repeat(np.rint((np.asarray(fake) + 1) * 127.5), 3, -1)
    assert np.abs(made["generated"] - expected).max() <= 1
    assert made["generated"].dtype == np.uint8


@pytest.mark.parametrize("plan", [HOST, DEVICE], ids=["host", "device"])
@pytest.mark.parametrize("broken", ["generator", "discriminator"])
def test_the_network_that_breaks_first_is_named(dataset, broken, plan):
    task = make()
    engine = Executor(task, dataset, 4, plan)
    state = engine.initial_state(0)
    network = state.state[broken]
    # Finite, but the next product with it is not.
    network = network.replace(params=jax.tree.map(lambda x: x.at[..., 0].set(1e38), network.params))
    state = state.replace(state=state.state | {broken: network})
    state = engine.train(state, batches(0, 12, 4, 0), plan.steps_per_dispatch, 0)
    assert not finite.is_finite(state.sums)
    found = engine.training_metrics(state)
    assert list(found) == [f"step of the {broken}"] and np.isnan(found[f"step of the {broken}"])


def test_nan_in_one_network_is_named(dataset):
    task = make()
    state = task.init(jax.random.key(0))
    assert set(networks(state)) == {"generator", "discriminator"}
    assert finite.non_finite_parts(state) == []
    bad = state["discriminator"]
    bad = bad.replace(params=jax.tree.map(lambda x: x.at[..., 0].set(jnp.nan), bad.params))
    assert finite.non_finite_parts(state | {"discriminator": bad}) == [
        "parameters of the discriminator"
    ]
