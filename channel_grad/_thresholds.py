"""Every number of this package that a backend changes, with its source.

A number was measured, on a device at a commit, or it was not measured and is chosen from principle.
`python -m experiments.benchmarks.gpu_suite --parts=sobolev` measures those of `DENSE_UP_TO`,
`DENSE_UP_TO_WITHOUT_PREFIX` and `PREFIX_UP_TO`, and suggests values for the device it runs on.
"""

from __future__ import annotations

from typing import NamedTuple

import jax


class Threshold(NamedTuple):
    """A number and where it is from.

    Attributes:
        value: the number.
        source: "measured on DEVICE at COMMIT", or "not measured" and why it was chosen.
    """

    value: int
    source: str


_CPU = "measured on an Intel Xeon, 2 cores, at 08053fdbbe7f (experiments.benchmarks.channel_grad)"

# By backend, "other" for all but the CPU.

# The longest axis for which "auto" takes the dense product, where "prefix" is the alternative.
DENSE_UP_TO = {
    "cpu": Threshold(48, _CPU),
    "other": Threshold(
        512, "not measured: a product costs little more than its memory traffic there"
    ),
}
# The same where the FFT is the alternative.
DENSE_UP_TO_WITHOUT_PREFIX = {
    "cpu": Threshold(128, _CPU),
    "other": Threshold(1024, "not measured: short kernels launched one by one cost more"),
}
# The same with several devices: an axis may be sharded, and an FFT gathers arrays that a product
# does not.
DENSE_UP_TO_ON_SEVERAL_DEVICES = {
    "cpu": Threshold(4096, "not measured: an FFT gathers arrays that a product does not"),
    "other": Threshold(4096, "not measured: an FFT gathers arrays that a product does not"),
}
# The longest axis for which "prefix" is taken; beyond it, the FFT.
PREFIX_UP_TO = {
    "cpu": Threshold(4096, _CPU),
    "other": Threshold(4096, "not measured: that of a CPU"),
}

# The longest axis for which a mean along it is taken by the dense product too.
MEAN_AS_PRODUCT_UP_TO = {
    "cpu": Threshold(0, _CPU),
    "other": Threshold(
        64,
        "not measured: XLA merges the products of kernels of one shape, but launches a sum for "
        "each, 27 more in a step of ResNet-56 (experiments.benchmarks.gpu_compile)",
    ),
}


def value_of(thresholds: dict[str, Threshold]) -> int:
    """The number for JAX's default backend."""
    return thresholds["cpu" if jax.default_backend() == "cpu" else "other"].value
