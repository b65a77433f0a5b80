"""Every number of this package that a backend changes, or may change, with its source.

A number was measured, on a device at a commit, or it was not measured and is chosen from principle.
`python -m experiments.benchmarks.gpu_suite --parts=optflow` times the solvers that they choose
between, on the device it runs on.
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


_CPU = "measured on an Intel Xeon, 2 cores, at 48d6632a2203 (experiments.benchmarks.optflow)"
_AS_ON_A_CPU = "not measured: that of a CPU"

# By backend, "other" for all but the CPU.

# Pixels of a parity class up to which K^-1 is applied as a dense matrix, and pixels of a frame of
# it up to which as a matrix for each temporal mode; see `_operators.Parity.inverse`.
DENSE_UP_TO = {"cpu": Threshold(32, _CPU), "other": Threshold(32, _AS_ON_A_CPU)}
MODES_UP_TO = {"cpu": Threshold(144, _CPU), "other": Threshold(144, _AS_ON_A_CPU)}

# The largest parity class, in pixels, and the most elements of all matrices together, for which
# "auto" factors at once; 0 where it never does.
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
