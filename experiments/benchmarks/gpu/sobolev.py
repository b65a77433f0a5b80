"""The Sobolev gradient's methods by the length of the axis, over one read and one write."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jax

import channel_grad
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.timed import first_calls, repeated, turns_within
from experiments.benchmarks.timing import quartiles

METHODS = ("dense", "prefix", "fft")
# Applied again and again, a map with the mean's factor 1 neither grows nor vanishes at once.
_METRIC = channel_grad.Sobolev(lam=0.5, l2_weight=0.5)


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """The methods at each length, and the thresholds that their times suggest."""
    lengths = setup.sizes.channels
    results["lengths"] = {}
    for done, n in enumerate(lengths):
        if not clock.fits():
            results.setdefault("left_out", []).append(f"n = {n}")
            continue
        seconds = clock.left / (len(lengths) - done)
        results["lengths"][str(n)] = row = _at(setup, clock.part(seconds), n, results)
        shown = ", ".join(f"{m} {row['over_copy'][m]['median']:.2f}" for m in row["over_copy"])
        setup.notice(f"  n = {n}: over a copy: {shown}")
    results["suggested_thresholds"] = thresholds(
        {
            int(n): {m: v["median"] for m, v in row["over_copy"].items()}
            for n, row in results["lengths"].items()
        }
    )


def _at(setup: Setup, clock: Clock, n: int, results: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of each method for lines of length n, as in a kernel (3, 3, n, n)."""
    lines = max(1, min(9 * n, setup.sizes.most_elements // n))
    f = jax.random.normal(jax.random.key(0), (lines, n))
    times, seconds = setup.sizes.repeats, clock.left
    functions = {"copy": lambda f: f * 0.999}
    for method in METHODS:
        functions[method] = lambda f, method=method: _METRIC.gradient(f, method=method)
    calls = {}
    for name, function in functions.items():
        call = repeated(function, times)
        calls[name] = lambda call=call: call(f)
    own: dict[str, Any] = {}
    made = first_calls(calls, clock, setup.sizes.workers, own)
    for name in own.get("left_out", []):
        results.setdefault("left_out", []).append(f"{name}, n = {n}")
    found = turns_within({name: calls[name] for name in made}, seconds / 4, setup.sizes.turns)
    return {
        "lines": lines,
        "microseconds": {m: quartiles(1e6 * t / times) for m, t in found.items()},
        "over_copy": {m: quartiles(t / found["copy"]) for m, t in found.items() if m != "copy"},
    }


def thresholds(over_copy: dict[int, dict[str, float]]) -> dict[str, int | None]:
    """The longest axis up to which a method is best taken, among the lengths measured.

    It makes the geometric mean of all times the least, where beyond it the fastest of the other
    methods is taken: the noise of one length does not decide.

    Args:
      over_copy: length -> method -> time.

    Returns:
      By the names of the thresholds in channel_grad; "prefix" counts from where "dense" is no
      longer taken. None where a method is best never taken. Lengths that lack one of the methods
      do not count.

    Example:
      >>> thresholds({16: {"dense": 1, "prefix": 4, "fft": 3}, 64: {"dense": 2, "prefix": 1,
      ...     "fft": 3}, 256: {"dense": 9, "prefix": 5, "fft": 4}})
      {'dense_up_to': 16, 'dense_up_to_without_prefix': 64, 'prefix_up_to': 64}
    """

    def longest(method: str, others: tuple[str, ...], above: int = 0) -> int | None:
        gains = {  # in the logarithm of the time, of the method over the best of the others
            n: math.log(min(times[other] for other in others) / times[method])
            for n, times in sorted(over_copy.items())
            if n > above and all(m in times for m in (method, *others))
        }
        totals = dict(zip(gains, itertools.accumulate(gains.values()), strict=True))
        best = max(totals, key=lambda n: totals[n], default=None)
        return best if best is not None and totals[best] > 0 else None

    dense = longest("dense", ("prefix", "fft"))
    return {
        "dense_up_to": dense,
        "dense_up_to_without_prefix": longest("dense", ("fft",)),
        "prefix_up_to": longest("prefix", ("fft",), above=dense or 0),
    }


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    lines = []
    for n, row in results.get("lengths", {}).items():
        copy = row["microseconds"].get("copy")
        text = ", ".join(f"{m} {v['median']:.2f}" for m, v in row["over_copy"].items())
        if copy:
            lines.append((f"n = {n}, {row['lines']} lines: time over a copy's", text))
    suggested = results.get("suggested_thresholds", {})
    known = ", ".join(f"{name} {value}" for name, value in suggested.items())
    return [*lines, ("thresholds suggested", known)] if known else lines
