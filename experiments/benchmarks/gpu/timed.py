"""Timing that keeps to a clock: compiling first, then turns until the time is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.timing import in_turns


def first_calls(
    calls: dict[str, Callable[[], Any]], clock: Clock, workers: int, results: dict[str, Any]
) -> dict[str, float]:
    """Makes the first call of each, which compiles it, several side by side.

    A call is left out if the longest of those before it would not fit; results["left_out"] then
    names it.

    Args:
      calls: by name, the most valuable first.
      clock: of the part.
      workers: threads.
      results: of the part.

    Returns:
      Seconds of the first calls that were made, by name.
    """
    longest, lock = [0.0], threading.Lock()

    def make(call: Callable[[], Any]) -> float | None:
        if not clock.fits(longest[0]):
            return None
        start = time.perf_counter()
        jax.block_until_ready(call())
        seconds = time.perf_counter() - start
        with lock:
            longest[0] = max(longest[0], seconds)
        return seconds

    with ThreadPoolExecutor(workers) as pool:
        seconds = dict(zip(calls, pool.map(make, calls.values()), strict=True))
    skipped = [name for name, value in seconds.items() if value is None]
    if skipped:
        results.setdefault("left_out", []).extend(skipped)
    return {name: value for name, value in seconds.items() if value is not None}


def turns_within(
    calls: dict[str, Callable[[], Any]], seconds: float, most: int
) -> dict[str, np.ndarray]:
    """`in_turns` of calls that are compiled, for about this long; at least one turn."""
    return in_turns(calls, most, seconds=max(seconds, 0.0), warm=0)


def repeated(function: Callable[[Any], Any], times: int) -> Callable[[Any], Any]:
    """The function applied to its own result `times` times, as one compiled program.

    On an accelerator a call from the host takes longer than a small function.
    """
    if times == 1:
        return jax.jit(function)
    return jax.jit(lambda x: jax.lax.fori_loop(0, times, lambda _, y: function(y), x))
