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
generated.json and the table at the end have these and the mean IoU of the labels that a network
finds on generated images. samples.png shows label maps, what each run generates, and the real
images; pictures/ has those of every evaluation.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import optax
from absl import flags

from experiments import data, voc_unet
from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.figures import label_to_image as figures
from experiments.models import vgg19
from experiments.models.patch_discriminator import MultiscaleDiscriminator
from experiments.models.spade import Generator, initialize
from experiments.reports import generated
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json
from experiments.tasks import features as scoring
from experiments.tasks.conditional_gan import NETWORKS, ConditionalGan, Segmenter
from experiments.tasks.label_maps import colors, condition, flip
from experiments.tasks.supervised import no_augmentation
from experiments.training.checkpoints import read_latest
from experiments.training.config import METRICS, Length, OptimizerConfig
from experiments.training.optimizer import make_optimizer
from experiments.training.settings import Config, at_least, composed, leaves, setting, with_settings
from experiments.training.study import Run
from experiments.training.task import Headline

SAME = "same"
FRECHET = Headline("frechet_distance", higher_is_better=False)
FID = Headline("fid", higher_is_better=False)
# The flags that say how many images of a split are evaluated.
_EVALUATED_BY = {
    "train": "train_examples",
    "validation": "validation",
    "test": "evaluation_examples",
}
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
    inception: str = setting(
        "",
        "File of the Inception weights that FID is defined by; see prepare_data inception. "
        "Default: the features of a small network for digit_scenes.",
    )
    unet: str = setting(
        "",
        "Workdir of a finished voc_unet on the same dataset: its U-Net labels generated images. "
        "Default: the small network for digit_scenes, nothing on Cityscapes.",
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
        unused |= {name for name in ("inception", "unet") if not getattr(self, name)}
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
QUICK_IMAGES = 1_800
# From scratch, for a few minutes of two cores. Adam, because few steps of SGD hardly move what
# begins small: the layers that make gamma and beta of the label map.
QUICK = PAPER | {
    "width": 8,
    "discriminator_width": 8,
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "batch_size": 4,
    "epochs": Derived(f"{QUICK_IMAGES:,} images", _epochs(QUICK_IMAGES)),
    "evaluate_every": Derived("a sixth of the preset's epochs", _epochs(QUICK_IMAGES // 6)),
}
QUICK_EVALUATED, QUICK_SIZE = 256, 64


def build(config: SpadeConfig, dataset: Dataset) -> tuple[ConditionalGan, Length]:
    """Both networks, their optimizers, and what generated images are scored with."""
    for split, flag in _EVALUATED_BY.items():
        if split in dataset.splits() and len(dataset.splits()[split]) == 1:
            raise ConfigError(flag, f"1 {split} image", "2 or more, as a Frechet distance needs")
    features, evaluated = _features(config), len(dataset.test)
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
        headline=FID if config.inception else FRECHET,
        colors=colors(dataset),
        final_train_examples=evaluated,
        evaluation_batch=max(4, EVALUATED_PIXELS // math.prod(dataset.example_shape[:2])),
        reference=_reference(dataset, features, evaluated),
        segmenter=_segmenter(config, dataset),
        feature_matching=config.feature_matching,
        perceptual=_perceptual(config),
        augment=flip if dataset.mirror_symmetric else no_augmentation,
        initialize=initialize,
    )
    return task, config.length


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


def _features(config: SpadeConfig) -> scoring.Features:
    if not config.inception:
        return scoring.of_scenes()
    accepted = "a file that `python -m experiments.prepare_data inception` wrote"
    return _read("inception", config.inception, scoring.of_inception, accepted)


def _reference(dataset: Dataset, features: scoring.Features, count: int):
    """A function that computes the features of real images once."""
    return functools.cache(lambda: scoring.of_real_images(dataset, features, count, used=count))


def _segmenter(config: SpadeConfig, dataset: Dataset) -> Segmenter | None:
    if config.unet:
        accepted = f"the workdir of a finished voc_unet on {dataset.name}"
        load = functools.partial(trained_unet, dataset=dataset)
        return _read("unet", config.unet, load, accepted)
    return scoring.segmenter_of_scenes() if dataset.name == "digit_scenes" else None


def trained_unet(path: pathlib.Path, dataset: Dataset) -> Segmenter:
    """The U-Net of a workdir: of its first run, the first trial that ended."""
    try:
        record = json.loads((path / "config.json").read_text("utf-8"))
        summary = json.loads((path / "summary.json").read_text("utf-8"))
        name, settings = next(iter(record["settings"]["runs"].items()))
        ended = [trial["seed"] for trial in summary["runs"][0]["trials"] if "error" not in trial]
        if record["settings"]["experiment"] != voc_unet.EXPERIMENT.name or not ended:
            raise UserError(f"it holds no finished trial of {voc_unet.EXPERIMENT.name}")
        state = read_latest(path / "checkpoints" / name / f"seed_{ended[0]}")["state"]
        size = tuple(int(side) for side in settings["image_size"].split("x"))
        about = record["settings"]["dataset"]["name"]
    except (OSError, ValueError, KeyError, TypeError, IndexError, StopIteration) as error:
        raise UserError(str(error) or type(error).__name__) from error
    if about != dataset.name:
        raise UserError(f"it was trained on {about}")
    options = {"size": size[0]} if dataset.name == "digit_scenes" else {}
    pictures = data.load(about, record.get("data_dir") or data.DEFAULT_DATA_DIR, **options)
    pictures = pictures.with_train_examples(settings["train_examples"])
    # A batch that was divided over devices is recorded with the settings, and is none of them.
    own = {leaf.flag for leaf in leaves(voc_unet.UnetConfig)}
    chosen = {flag: value for flag, value in settings.items() if flag in own}
    config = with_settings(voc_unet.UnetConfig(), chosen)
    task, _ = voc_unet.build(config, pictures)
    variables = {"params": state["params"], **state["collections"]}
    return scoring.segmenter_of_task(task, variables, size, scoring.truth_of(dataset))


def _perceptual(config: SpadeConfig):
    if not config.vgg:
        return None
    load = functools.partial(vgg19.perceptual_loss, weight=config.perceptual)
    return _read("vgg", config.vgg, load, "a .npz or .safetensors file of VGG-19's weights")


def _read(flag: str, given: str, read: Callable[[pathlib.Path], Any], accepted: str) -> Any:
    """What a reader makes of the path that a flag gives; its errors in the name of the flag."""
    try:
        return read(pathlib.Path(given).expanduser())
    except (UserError, RuntimeError) as error:  # RuntimeError: ~nobody, there is no such user
        raise ConfigError(flag, f"{given} ({error})", accepted) from error


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


def finish(path: pathlib.Path, summary: dict[str, Any], dataset: Dataset, runs: list[Run]) -> str:
    """Writes generated.json; the table of distances, floors and mean IoU."""
    results = generated.results(summary, dataset)
    write_json(path / "generated.json", results)
    return generated.table(results)


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
    finish=finish,
)

if __name__ == "__main__":
    EXPERIMENT.run()
