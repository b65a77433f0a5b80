"""U-Net on Pascal VOC under channel-directed metrics (Channel-directed gradients, figure 7).

    python -m experiments.voc_unet --preset=quick --metric=l2,sobolev
    python -m experiments.voc_unet --preset=paper --metric=l2,sobolev,reweighted_l2 --trials=3
        --encoder_weights=resnet50.npz

Without Pascal VOC prepared (python -m experiments.prepare_data voc) it trains on digit_scenes:
scanned digits on pieces of photographs. The headline is mean IoU, from the confusion matrix summed
over the set, void ignored. segmentation.json and the table at the end have pixel accuracy, IoU of
each class, the mean IoU of single images and the gap between training and test accuracy beside it.
classes.png and panel.png show IoU of each class, and pictures with truth and prediction.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import channel_grad
from experiments.cli.flags import Derived
from experiments.cli.training import Experiment
from experiments.data.dataset import Dataset
from experiments.figures import segmentation as figures
from experiments.models import torchvision_weights
from experiments.models.initialization import he_normal_variables
from experiments.models.resnet_encoder import ENCODERS, WIDTH
from experiments.models.unet import STRIDE, UNet
from experiments.reports import segmentation as report
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json
from experiments.tasks.segmentation import LOSSES, scale_crop_and_flip, segmentation
from experiments.tasks.supervised import Supervised
from experiments.training import optimizer as optimizers
from experiments.training.config import PRECISIONS, Length, MetricConfig, OptimizerConfig
from experiments.training.settings import Config, composed, setting
from experiments.training.study import Run

TRANSPOSED = ("convolution", "listing", "none")
LARGEST_DECODER = 64
MOST_EVALUATED = 16  # examples at once; the head of the network holds 31 n channels of each pixel


@dataclasses.dataclass(frozen=True)
class UnetConfig(Config):
    """The network, its loss and augmentation, its optimizer and the length of its training.

    Attributes:
      image_size: height and width of the pictures, for the record.
      train_examples: number of training pictures, for the record.
    """

    encoder: str = setting("resnet50", "The encoder, as in torchvision.", choices=ENCODERS)
    width: int = setting(
        WIDTH,
        "Channels of the encoder's first layer and of the head; 64 is the network of the paper.",
        minimum=1,
    )
    encoder_weights: str = setting(
        "",
        "File of pretrained weights of the encoder, .npz or .safetensors in torchvision's names. "
        "Pictures are then normalized as these were. Default: the encoder begins at random.",
    )
    decoder_filters: int = setting(
        8, "Channels of the last decoder block, n; the others are multiples of it.", minimum=1
    )
    loss: str = setting(
        "cross_entropy", "Loss of a picture; both is the sum of the two.", choices=LOSSES
    )
    scale_jitter: float = setting(
        0.5,
        "Training pictures are scaled by a factor from 1 - scale_jitter to 1 + scale_jitter, and "
        "cropped or padded to their size.",
        minimum=0.0,
        below=1.0,
    )
    transposed: str = setting(
        "convolution",
        "Where metrics act in transposed convolutions: as in convolutions (convolution), along the "
        "axis that the paper's listing takes of PyTorch's kernels, which holds the other channels "
        "(listing), or nowhere (none).",
        choices=TRANSPOSED,
    )
    weight_decay: float = setting(
        4e-5,
        "Added to the gradient as weight_decay * weights; see --optimizer.",
        minimum=0.0,
        search=(1e-6, 1e-2),
    )
    precision: str = setting("float32", "What convolutions compute in.", choices=PRECISIONS)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)
    model: str = ""
    image_size: str = ""
    train_examples: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.decoder_filters > LARGEST_DECODER:
            raise ConfigError("decoder_filters", self.decoder_filters, f"1 to {LARGEST_DECODER}")
        if self.width > WIDTH:
            raise ConfigError("width", self.width, f"1 to {WIDTH}")
        if self.encoder_weights and self.width != WIDTH:
            raise ConfigError("encoder_weights", self.encoder_weights, f"with --width={WIDTH} only")
        narrow = "" if self.width == WIDTH else f"_width{self.width}"
        name = f"unet_{self.encoder}{narrow}_n{self.decoder_filters}"
        object.__setattr__(self, "model", name)

    def used(self) -> set[str]:
        unused = set() if self.encoder_weights else {"encoder_weights"}
        metric = self.optimizer.metric
        if metric.name in ("l2", "centralization") or metric.layers == "all":
            unused |= {"transposed"}
        return super().used() - unused


# The paper gives the learning rate and the batch size; momentum, weight decay and the crops are
# those of the repository that it names. That trains with the Lovasz loss alone, a cosine with
# restarts, and void as background; cross-entropy, one cosine, no void and the epochs are ours.
PAPER = {
    "learning_rate": 7e-3,
    "batch_size": 2,
    "epochs": 50.0,
    "schedule": "cosine",
}
QUICK_PICTURES = 20_000
# From scratch, for a few minutes of two cores.
QUICK = PAPER | {
    "encoder": "resnet18",
    "width": 16,
    "decoder_filters": 2,
    "optimizer": "adam",
    "learning_rate": 3e-3,
    "batch_size": 16,
    "scale_jitter": 0.25,
    "epochs": Derived(
        f"{QUICK_PICTURES:,} pictures",
        lambda dataset, chosen: QUICK_PICTURES / len(dataset.train),
    ),
    "evaluate_every": Derived(
        "a quarter of the preset's epochs",
        lambda dataset, chosen: QUICK_PICTURES / len(dataset.train) / 4,
    ),
}


def build(config: UnetConfig, dataset: Dataset) -> tuple[Supervised, Length]:
    """The network, the loss, the augmentation and the optimizer."""
    *size, channels = dataset.example_shape
    if any(side % STRIDE for side in size):
        raise ConfigError("size", "{} x {}".format(*size), f"multiples of {STRIDE}")
    examples, length = len(dataset.train), config.length
    optimizer, schedule = optimizers.make_optimizer(
        config.optimizer,
        length.steps(examples),
        length.steps_per_epoch(examples),
        config.weight_decay,
        metric_axes(config.optimizer.metric, config.transposed),
    )
    options: dict[str, Any] = {"initialize": he_normal_variables}
    mean = dataset.train.channel_statistics[0]
    if config.encoder_weights:
        if channels != len(torchvision_weights.MEAN):
            raise ConfigError("encoder_weights", f"{channels} channels", "a dataset in colors")
        mean = np.array(torchvision_weights.MEAN, np.float32)
        options |= {"initialize": _pretrained(config, dataset), "normalize": _as_pretrained}
    task = segmentation(
        network(config, dataset),
        dataset,
        optimizer,
        schedule,
        config.loss,
        augment=scale_crop_and_flip(
            config.scale_jitter if dataset.ignore_label is not None else 0.0,
            flip=dataset.mirror_symmetric,
            ignore=dataset.ignore_label or 0,
            color=tuple(255 * mean),
        ),
        batch_statistics=True,
        evaluation_batch=min(length.batch_size, MOST_EVALUATED),
        **options,
    )
    return task, length


def network(config: UnetConfig, dataset: Dataset) -> UNet:
    """The network that the settings describe."""
    return UNet(
        dataset.num_classes,
        config.encoder,
        config.decoder_filters,
        config.width,
        jnp.dtype(config.precision),
    )


def metric_axes(metric: MetricConfig, transposed: str) -> channel_grad.AxisSpec:
    """Where the metric acts, transposed convolutions included.

    Their kernels are (height, width, input, output) in Flax, and (input, output, height, width) in
    PyTorch, where kernels of convolutions are (output, input, height, width). So the paper's
    listing, which takes the first axis of every kernel, acts along the inputs of transposed ones.
    """
    axes = optimizers.axes(metric.direction, metric.layers)
    if metric.layers == "all":
        return axes
    if transposed == "none":
        return axes.exclude("transposed_conv")
    layout = channel_grad.Layout("kernel", -1, -2)
    along = {
        "output": layout.transposed_output_axes,
        "input": layout.transposed_input_axes,
        "raster": _transposed_raster(layout),
    }
    direction = metric.direction
    if transposed == "listing":
        direction = {"output": "input", "input": "output"}.get(direction, direction)
    return axes | along[direction]


def _transposed_raster(layout: channel_grad.Layout) -> channel_grad.AxisSpec:
    def rule(path, leaf):
        return None if layout.transposed_output_axes.axis(path, leaf) is None else (-1, -2, 0, 1)

    return channel_grad.AxisSpec(rule)


def _pretrained(config: UnetConfig, dataset: Dataset) -> Callable[..., dict[str, Any]]:
    """Initial variables with the encoder's weights from the file, which is read here."""
    model, shape = network(config, dataset), (1, *dataset.example_shape)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    encoder = {name: shapes[name]["encoder"] for name in ("params", "batch_stats")}
    try:
        loaded = torchvision_weights.load(
            pathlib.Path(config.encoder_weights).expanduser(), encoder
        )
    except UserError as error:
        raise ConfigError(
            "encoder_weights",
            f"{config.encoder_weights} ({error})",
            f"a .npz or .safetensors file with the weights of torchvision's {config.encoder}",
        ) from error

    def initialize(model, shape, key):
        variables = he_normal_variables(model, shape, key)
        return variables | {
            name: variables[name] | {"encoder": weights} for name, weights in loaded.items()
        }

    return initialize


def _as_pretrained(images):
    mean = np.array(torchvision_weights.MEAN, np.float32)
    deviation = np.array(torchvision_weights.DEVIATION, np.float32)
    return (images.astype(np.float32) / 255 - mean) / deviation


def limit(dataset: Dataset, values: flags.FlagValues) -> Dataset:
    """The dataset with --train_examples of its training pictures."""
    count = values.train_examples
    return dataset if count is None else dataset.with_train_examples(count)


def recorded(dataset: Dataset) -> dict[str, Any]:
    """What the record of a run says about its pictures."""
    height, width, _ = dataset.example_shape
    return {"image_size": f"{height}x{width}", "train_examples": len(dataset.train)}


def finish(
    path: pathlib.Path, summary: dict[str, Any], dataset: Dataset, runs: Sequence[Run]
) -> str:
    """Writes segmentation.json, classes.png and panel.png; the table of all scores."""
    results = report.results(summary, dataset)
    write_json(path / "segmentation.json", results)
    if any(run["n"] for run in results["runs"]):
        figures.draw_classes(path, results)
        figures.draw_panel(path, dataset, report.predictions(path, summary, dataset, runs, build))
    return report.table(results)


EXPERIMENT = Experiment(
    name="voc_unet",
    config=UnetConfig,
    presets={"quick": QUICK, "paper": PAPER},
    datasets=("auto", "digit_scenes", "voc", "cityscapes"),
    preferred="voc",
    build=build,
    data_flags={
        "size": (
            int,
            "Height and width of digit_scenes, a multiple of 64. Default: 64. Take 128 or more for "
            "batches below 16, or the deepest layer is normalized over too few pixels.",
        ),
        "train_examples": (int, "Number of training pictures. Default: all."),
    },
    load_options=("size",),
    limit=limit,
    recorded=recorded,
    finish=finish,
)

if __name__ == "__main__":
    EXPERIMENT.run()
