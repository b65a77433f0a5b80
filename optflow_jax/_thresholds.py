"""Every number of this package that depends, or may depend, on the backend, with its source.

A number was either measured, on a device at a commit, or chosen without a measurement, for a stated
reason. `python -m experiments.benchmarks.gpu_suite --parts=optflow` times the solvers between which
these numbers choose, on the device where it runs.
"""

from __future__ import annotations

from typing import NamedTuple

import jax


class Threshold(NamedTuple):
    """A number and its source.

    Attributes:
        value: the number.
        source: "measured on DEVICE at COMMIT", or "not measured" and why it was chosen.
    """

    value: int
    source: str


_CPU = "measured on an Intel Xeon, 2 cores, at 48d6632a2203 (experiments.benchmarks.optflow)"
_AS_ON_A_CPU = "not measured: that of a CPU"

# Each number is given by backend; "other" is every backend but the CPU.

# The most pixels of a parity class for which K^-1 is applied as one dense matrix, and the most
# pixels of one frame of a class for which it is applied as one matrix per temporal mode; see
# `_operators.Parity.inverse`.
DENSE_UP_TO = {"cpu": Threshold(32, _CPU), "other": Threshold(32, _AS_ON_A_CPU)}
MODES_UP_TO = {"cpu": Threshold(144, _CPU), "other": Threshold(144, _AS_ON_A_CPU)}

# The largest parity class, in pixels, and the most elements of all matrices together, for which
# "auto" factors at once; 0 if it never does.
DIRECT_PIXELS = {
    "cpu": Threshold(0, _CPU),
    "other": Threshold(
        256, "not measured: launches were counted (experiments.benchmarks.gpu_compile)"
    ),
}
DIRECT_ELEMENTS = {
    "cpu": Threshold(0, _CPU),
    "other": Threshold(2**27, "not measured: half a gigabyte in float32"),
}
# The largest parity class for which Cholesky is tried after another solver has failed.
RESCUE_PIXELS = {
    "cpu": Threshold(2048, "not measured: 17 MB in float32 to factor, and seconds on a laptop"),
    "other": Threshold(2048, _AS_ON_A_CPU),
}


def value_of(thresholds: dict[str, Threshold]) -> int:
    """The number for JAX's default backend."""
    return thresholds["cpu" if jax.default_backend() == "cpu" else "other"].value
