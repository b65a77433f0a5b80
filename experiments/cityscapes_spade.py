"""SPADE on Cityscapes under channel-directed metrics (Channel-directed gradients, table 3).

    python -m experiments.cityscapes_spade --preset=quick --metric=l2,sobolev
    python -m experiments.cityscapes_spade --preset=paper --metric=l2,sobolev,reweighted_l2
        --trials=24 --inception=inception.npz

Without Cityscapes prepared (python -m experiments.prepare_data cityscapes) it trains on
digit_scenes: scanned digits on pieces of photographs. A generator makes images from label maps and
the edges of instances, against a discriminator of patches at two scales; the gradient of each
network is taken under the metric. The headline is the Frechet distance between generated and real
test images, lower is better: in the features of the Inception network (FID) where --inception names
its weights, else in those of a small network that the project trained on digit_scenes. Beside it
stands its floor, the distance of as many real training images from the real test images.
samples.png shows label maps, what each run generates, and the real images; pictures/ has those of
every evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.figures import label_to_image as figures
from experiments.models import vgg19
from experiments.models.patch_discriminator import MultiscaleDiscriminator
from experiments.models.spade import Generator, initialize
from experiments.system.errors import ConfigError, UserError
from experiments.tasks import features as scoring
from experiments.tasks.conditional_gan import NETWORKS, ConditionalGan
from experiments.training.config import METRICS, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, at_least, composed, setting

EDGE = ", edge"  # ends the name of a class at the border of an instance
SAME = "same"
EVALUATED_PIXELS = 32 * 64**2  # of one evaluation batch
# What Park et al. train with; they name no other betas for their two rates.
adam = functools.partial(optax.adam, b1=0.0, b2=0.9)


@dataclasses.dataclass(frozen=True)
class SpadeConfig(Config):
    """Both networks, their losses, their optimizers and the length of their training.

    Attributes:
      image_size: height and width of the images, for the record.
      train_examples: number of training images, for the record.
    """

    width: int = setting(
        64, "Channels of the generator's last block (ngf); 64 is the paper's.", minimum=1
    )
    discriminator_width: int = setting(
        64, "Channels of the discriminator's first layer (ndf); 64 is the paper's.", minimum=1
    )
    discriminator_rate: float = setting(
        4.0,
        "Learning rate of the discriminator, in multiples of the generator's, --learning_rate.",
        above=0.0,
        search=(0.5, 16.0),
    )
    generator_metric: str = setting(
        SAME, "Metric of the generator's gradient, where not --metric.", choices=(SAME, *METRICS)
    )
    discriminator_metric: str = setting(
        SAME, "Metric of the discriminator's, where not --metric.", choices=(SAME, *METRICS)
    )
    feature_matching: float = setting(
        10.0,
        "Weight of the L1 distance between the discriminator's features of generated and real.",
        minimum=0.0,
    )
    vgg: str = setting(
        "",
        "File of VGG-19's weights, .npz or .safetensors in torchvision's names, for the perceptual "
        "loss. Default: no perceptual loss.",
    )
    perceptual: float = setting(10.0, "Weight of the perceptual loss; see --vgg.", minimum=0.0)
    weight_decay: float = setting(
        5e-4,
        "Added to the gradient as weight_decay * weights; see --optimizer.",
        minimum=0.0,
        search=(1e-5, 1e-2),
    )
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    model: str = "spade"
    image_size: str = ""
    train_examples: int = 0

    def used(self) -> set[str]:
        unused = set() if self.vgg else {"vgg", "perceptual"}
        unused |= {
            name
            for name in ("generator_metric", "discriminator_metric")
            if getattr(self, name) == SAME
        }
        return super().used() - unused


def _decay(dataset: Dataset, chosen: dict[str, Any]) -> float:
    return 0.0 if chosen.get("optimizer") == "adam" else 5e-4


def _epochs(images: int):
    """The epochs that show `images` images."""
    return lambda dataset, chosen: images / len(dataset.train)


# The paper: rates, batch size, momentum and weight decay. SPADE: 200 epochs, Adam without decay.
PAPER = {
    "learning_rate": 1e-4,
    "batch_size": 2,
    "epochs": 200.0,
    "evaluate_every": 10.0,
    "schedule": "linear",
    "weight_decay": Derived("5e-4, 0 with adam", _decay),
}
QUICK_IMAGES = 3_000
# From scratch, for a few minutes of two cores.
QUICK = PAPER | {
    "width": 8,
    "discriminator_width": 8,
    "learning_rate": 1e-3,
    "batch_size": 4,
    "epochs": Derived(f"{QUICK_IMAGES:,} images", _epochs(QUICK_IMAGES)),
    "evaluate_every": Derived("a sixth of the preset's epochs", _epochs(QUICK_IMAGES // 6)),
}
QUICK_EVALUATED, QUICK_SIZE = 256, 64


def build(config: SpadeConfig, dataset: Dataset) -> tuple[ConditionalGan, Length]:
    """Both networks, their optimizers, and what generated images are scored with."""
    features, evaluated = _features(config, dataset), len(dataset.test)
    optimizers, schedules = {}, {}
    for name in NETWORKS:
        optimizers[f"{name}_optimizer"], schedules[f"{name}_rate"] = _optimizer(
            config, name, len(dataset.train)
        )
    task = ConditionalGan(
        generator=Generator(config.width, dataset.example_shape[-1]),
        discriminator=MultiscaleDiscriminator(config.discriminator_width),
        example_shape=dataset.example_shape,
        condition=condition(dataset),
        **optimizers,
        schedules=schedules,
        features=features.compute,
        colors=colors(dataset),
        final_train_examples=evaluated,
        evaluation_batch=max(4, EVALUATED_PIXELS // math.prod(dataset.example_shape[:2])),
        reference=_reference(dataset, features, evaluated),
        segmenter=_segmenter(config, dataset),
        feature_matching=config.feature_matching,
        perceptual=_perceptual(config),
        augment=flip if dataset.mirror_symmetric else _as_they_are,
        initialize=initialize,
    )
    return task, config.length


def condition(dataset: Dataset):
    """A function from labels to what both networks see of them.

    One-hot classes, and one more channel for the edges of instances where the labels have them:
    label k + C is class k at an edge, with C classes.
    """
    edges = has_edges(dataset)
    classes = dataset.num_classes // 2 if edges else dataset.num_classes

    def channels(labels):
        labels = labels.astype(jnp.int32)
        maps = jax.nn.one_hot(labels % classes, classes)
        if not edges:
            return maps
        edge = (labels // classes).astype(maps.dtype)
        return jnp.concatenate([maps, edge[..., None]], axis=-1)

    return channels


def has_edges(dataset: Dataset) -> bool:
    """Whether the second half of a dataset's labels are classes at the edge of an instance."""
    return dataset.class_names[-1].endswith(EDGE)


def colors(dataset: Dataset) -> np.ndarray:
    """A color for each label, uint8 (labels, 3); at edges half of it is white."""
    edges = has_edges(dataset)
    classes = dataset.num_classes // 2 if edges else dataset.num_classes
    bits = np.arange(classes)
    palette = np.zeros((classes, 3), np.uint8)
    for place in range(8):  # Pascal VOC's rule: the bits of a class, the lowest ones brightest.
        for channel in range(3):
            palette[:, channel] |= (((bits >> (3 * place + channel)) & 1) << (7 - place)).astype(
                np.uint8
            )
    return np.concatenate([palette, 128 + palette // 2]) if edges else palette


def flip(key: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Half of the images and their labels with left and right exchanged."""
    mirrored = jax.random.bernoulli(key, 0.5, (len(images), 1, 1))
    flipped = jnp.where(mirrored[..., None], images[:, :, ::-1], images)
    return flipped, jnp.where(mirrored, labels[:, :, ::-1], labels)


def _as_they_are(key, images, labels):
    return images, labels


def _optimizer(config: SpadeConfig, network: str, examples: int):
    """The optimizer of one network, its own metric in front, and its learning rate."""
    own, optimizer, length = getattr(config, f"{network}_metric"), config.optimizer, config.length
    if own != SAME:
        metric = dataclasses.replace(optimizer.metric, name=own)
        optimizer = dataclasses.replace(optimizer, metric=metric)
    if network == "discriminator":
        rate = optimizer.learning_rate * config.discriminator_rate
        optimizer = dataclasses.replace(optimizer, learning_rate=rate)
    steps, per_epoch = length.steps(examples), length.steps_per_epoch(examples)
    return make_optimizer(optimizer, steps, per_epoch, config.weight_decay, adam=adam)


def _features(config: SpadeConfig, dataset: Dataset) -> scoring.Features:
    return scoring.of_scenes()


def _reference(dataset: Dataset, features: scoring.Features, count: int):
    """A function that computes the features of real images once."""
    return functools.cache(lambda: scoring.of_real_images(dataset, features, count, used=count))


def _segmenter(config: SpadeConfig, dataset: Dataset):
    scenes = dataset.name == "digit_scenes" and dataset.example_shape[0] == dataset.example_shape[1]
    return scoring.segmenter_of_scenes() if scenes else None


def _perceptual(config: SpadeConfig):
    if not config.vgg:
        return None
    try:
        return vgg19.perceptual_loss(pathlib.Path(config.vgg).expanduser(), config.perceptual)
    except (UserError, RuntimeError) as error:
        raise ConfigError(
            "vgg", f"{config.vgg} ({error})", "a .npz or .safetensors file of VGG-19's weights"
        ) from error


def limit(dataset: Dataset, values: flags.FlagValues) -> Dataset:
    """The dataset with --train_examples and --evaluation_examples of its images."""
    if values.train_examples is not None:
        dataset = dataset.with_train_examples(values.train_examples)
    count = values.evaluation_examples
    if count is None:
        return dataset
    at_least("evaluation_examples", count, 2)
    validation = dataset.validation and dataset.validation.subset(count)
    return dataclasses.replace(dataset, validation=validation, test=dataset.test.subset(count))


def recorded(dataset: Dataset) -> dict[str, Any]:
    """What the record of a run says about its images."""
    height, width, _ = dataset.example_shape
    return {"image_size": f"{height}x{width}", "train_examples": len(dataset.train)}


EXPERIMENT = Experiment(
    name="cityscapes_spade",
    config=SpadeConfig,
    presets={"quick": QUICK, "paper": PAPER},
    datasets=("auto", "digit_scenes", "cityscapes"),
    preferred="cityscapes",
    build=build,
    data_flags={
        "size": (int, f"Height and width of digit_scenes. Default: {QUICK_SIZE}."),
        "train_examples": (int, "Number of training images. Default: all."),
        "evaluation_examples": (
            int,
            "Number of validation and of test images that as many generated ones are compared "
            f"with. Distances fall with it. Default: {QUICK_EVALUATED} (quick), all (paper).",
        ),
    },
    load_options=("size",),
    load_with={"edges": True},
    embedded={"size": QUICK_SIZE},
    limit=limit,
    recorded=recorded,
    defaults={"quick": {"evaluation_examples": QUICK_EVALUATED}},
    draw=figures.draw,
)

if __name__ == "__main__":
    EXPERIMENT.run()
