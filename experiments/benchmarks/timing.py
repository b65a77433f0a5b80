"""Timing several calls in turns, in one process, so that a drift of the machine hits all alike."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_turns(
    calls: dict[str, Callable[[], Any]],
    turns: int,
    *,
    seconds: float = math.inf,
    warm: int = 2,
) -> dict[str, np.ndarray]:
    """Seconds of each call, (turns,); every turn makes all calls, one after another.

    The order is new in every turn, because a call is up to a third faster or slower depending on
    the one before it. Each call is first made twice, untimed, to compile and to allocate memory.

    Args:
      calls: by name; the time until their results are ready is measured.
      turns: number of turns, one or more.
      seconds: no turn begins later than this; the first one always does.
      warm: how often each call is made before.

    Example:
      >>> seconds = in_turns({"a": lambda: 1, "b": lambda: 2}, turns=3)
      >>> {name: times.shape for name, times in seconds.items()}
      {'a': (3,), 'b': (3,)}
    """
    order = np.random.default_rng(0)
    for call in calls.values():
        for _ in range(warm):
            jax.block_until_ready(call())
    measured = {name: np.zeros(turns) for name in calls}
    done, begin = 0, time.perf_counter()
    while done < turns and (not done or time.perf_counter() - begin < seconds):
        for name in order.permutation(list(calls)):
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            measured[name][done] = time.perf_counter() - start
        done += 1
    return {name: times[:done] for name, times in measured.items()}


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles.

    Example:
      >>> quartiles(np.array([1.0, 2.0, 3.0, 4.0, 5.0]))
      {'median': 3.0, 'low': 2.0, 'high': 4.0}
    """
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}
