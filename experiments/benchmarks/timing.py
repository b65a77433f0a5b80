"""Timing several calls in turns, in one process, so that a drift of the machine hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_turns(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, np.ndarray]:
    """Seconds of each call, (turns,); every turn makes all calls, one after another.

    The order is new in every turn, because a call is up to a third faster or slower depending on
    the one before it. Each call is first made twice, untimed, to compile and to allocate memory.

    Args:
      calls: by name; the time until their results are ready is measured.
      turns: number of turns.

    Example:
      >>> seconds = in_turns({"a": lambda: 1, "b": lambda: 2}, turns=3)
      >>> {name: times.shape for name, times in seconds.items()}
      {'a': (3,), 'b': (3,)}
    """
    order = np.random.default_rng(0)
    for call in calls.values():
        jax.block_until_ready(call())
        jax.block_until_ready(call())
    seconds = {name: np.zeros(turns) for name in calls}
    for turn in range(turns):
        for name in order.permutation(list(calls)):
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            seconds[name][turn] = time.perf_counter() - start
    return seconds


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles.

    Example:
      >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
      {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}
