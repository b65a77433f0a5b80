"""What the paper reports, typed from its text.

Channel-directed gradients, table 2 (section 4, "Image Classification"): test accuracy on CIFAR-10
in percent, means of 25 trials for SGD and of 10 for Adam. The text that the numbers were typed from
leaves one of VGG-16's three batch sizes out and gives another as 6; they are read as 128, 32 and 8,
those of the other two blocks.
"""

from __future__ import annotations

import dataclasses

PLACE = 'Channel-directed gradients, table 2 (section 4, "Image Classification")'
DATASET = "cifar10"


@dataclasses.dataclass(frozen=True)
class Reported:
    """One cell of table 2: mean test accuracy, and the error reduced against L2, in percent."""

    mean: float
    error_reduced: float | None = None


def _block(
    model: str,
    optimizer: str,
    l2: tuple[float, ...],
    sobolev: tuple[tuple[float, float], ...],
    reweighted_l2: tuple[tuple[float, float], ...],
) -> dict[tuple[str, str, int, str], Reported]:
    cells = {}
    for index, batch_size in enumerate((128, 32, 8)):
        cells[model, optimizer, batch_size, "l2"] = Reported(l2[index])
        cells[model, optimizer, batch_size, "sobolev"] = Reported(*sobolev[index])
        cells[model, optimizer, batch_size, "reweighted_l2"] = Reported(*reweighted_l2[index])
    return cells


# (model, optimizer, batch size, metric) -> what the paper reports.
TABLE_2 = {
    **_block(
        "resnet56", "sgd",
        (93.24, 91.96, 86.54),
        ((93.39, 2.2), (92.27, 3.9), (87.99, 10.8)),
        ((93.57, 4.9), (92.25, 3.6), (88.04, 11.1)),
    ),
    **_block(
        "vgg16", "sgd",
        (93.02, 92.31, 91.88),
        ((93.26, 3.4), (92.77, 6.0), (92.25, 4.6)),
        ((93.19, 2.4), (92.79, 6.2), (92.43, 6.8)),
    ),
    **_block(
        "resnet56", "adam",
        (91.20, 91.04, 89.53),
        ((91.42, 2.5), (91.13, 1.0), (90.02, 4.7)),
        ((91.20, 0.0), (91.06, 0.2), (89.70, 1.6)),
    ),
}  # fmt: skip


def reported(
    dataset: str, model: str, optimizer: str | None, batch_size: int | None, metric: str
) -> Reported | None:
    """What table 2 reports for these settings; None where it has no such cell.

    Example:
      >>> reported("cifar10", "resnet56", "sgd", 8, "sobolev")
      Reported(mean=87.99, error_reduced=10.8)
    """
    if dataset != DATASET:
        return None
    return TABLE_2.get((model, optimizer, batch_size, metric))
