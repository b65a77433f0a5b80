"""Timing several calls fairly: in turns, in one process, so that a drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_turns(calls: dict[str, Callable[[], Any]], turns: int) -> dict[str, np.ndarray]:
    """Seconds of each call, (turns,), all calls one after another in every turn.

    What a call returns is waited for.

    In a new order in every turn, because a call is up to a third faster or slower depending on the
    one before it. Each is first run twice, untimed, for compilation and for memory to be at hand.
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
    """Median and quartiles."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": float(median), "low": float(low), "high": float(high)}
