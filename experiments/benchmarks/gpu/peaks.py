"""Peak speed of named devices, and what share of it a program reaches."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

TERA = 1e12


class Peaks(NamedTuple):
    """What a device can do at most.

    Attributes:
      float32: FLOP/s of products of float32 as XLA runs them by default (TF32 on these GPUs).
      bfloat16: FLOP/s of products of bfloat16, dense.
      bandwidth: bytes/s of the device's memory.
      source: where the numbers are from.
    """

    float32: float
    bfloat16: float
    bandwidth: float
    source: str


_SHEET = "NVIDIA's data sheet, dense, float32 as TF32"
# The first name that a device's kind contains counts.
NAMED = {
    "H200": Peaks(494.7 * TERA, 989.4 * TERA, 4.8 * TERA, _SHEET),
    "H100 PCIe": Peaks(378 * TERA, 756 * TERA, 2.0 * TERA, _SHEET),
    "H100": Peaks(494.7 * TERA, 989.4 * TERA, 3.35 * TERA, _SHEET),
    "A100-SXM4-40GB": Peaks(156 * TERA, 312 * TERA, 1.555 * TERA, _SHEET),
    "A100-PCIE-40GB": Peaks(156 * TERA, 312 * TERA, 1.555 * TERA, _SHEET),
    "A100": Peaks(156 * TERA, 312 * TERA, 1.935 * TERA, _SHEET),
}
UNKNOWN = "peak unknown"


def peaks_of(kind: str, backend: str) -> Peaks | None:
    """The peaks of a device: from the table, measured on a CPU, or None where they are unknown.

    Example:
      >>> peaks_of("NVIDIA H100 80GB HBM3", "gpu").bandwidth, peaks_of("NVIDIA T4", "gpu")
      (3350000000000.0, None)
    """
    if backend == "cpu":
        return _measured()
    return next((peaks for name, peaks in NAMED.items() if name in kind), None)


def roofline(
    flop: float, moved: float, seconds: float, precision: str, peaks: Peaks | None
) -> dict[str, Any]:
    """How much of the time is what the peaks alone would take.

    Args:
      flop: floating point operations.
      moved: bytes read and written.
      seconds: measured.
      precision: "float32" or "bfloat16".
      peaks: of the device.

    Returns:
      "share_of_roofline" is the greater of both floors over the time, "bound" names that floor.

    Example:
      >>> roofline(1e12, 1e9, 2.0, "float32", Peaks(1e12, 2e12, 1e12, "made up"))
      {'share_of_roofline': 0.5, 'bound': 'arithmetic', 'peaks': 'made up'}
    """
    if peaks is None:
        return {"share_of_roofline": None, "bound": None, "peaks": UNKNOWN}
    arithmetic = flop / getattr(peaks, precision)
    memory = moved / peaks.bandwidth
    bound = "arithmetic" if arithmetic >= memory else "memory"
    share = max(arithmetic, memory) / seconds
    return {"share_of_roofline": share, "bound": bound, "peaks": peaks.source}


def _measured(size: int = 1024, elements: int = 2**24) -> Peaks:
    """The best of three matrix products and copies; bfloat16 counts as float32."""
    matrix, line = jnp.ones((size, size)), jnp.ones(elements)
    flop_rate = 2 * size**3 / _best(jax.jit(lambda a: a @ a), matrix)
    bandwidth = 2 * 4 * elements / _best(jax.jit(lambda a: a + 1), line)
    return Peaks(flop_rate, flop_rate, bandwidth, "a matrix product and a copy, measured here")


def _best(call: Any, argument: jax.Array) -> float:
    jax.block_until_ready(call(argument))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(call(argument))
        seconds.append(time.perf_counter() - start)
    return min(seconds)
