"""Runs the parts one after another, with a JSON file after each, inside the budget."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.setup import Setup
from experiments.system.files import write_json

NOT_STARTED = "not started: budget"
MEASURED, NOTHING, FAILED = "measured", "nothing measured: budget", "failed"
# Kept from the last part for joining results and ending the process.
SECONDS_TO_END = 2.0


class Part(NamedTuple):
    """One part of the suite.

    Attributes:
      name: of the part, its share of the budget and its file.
      about: what it measures, in one line.
      measure: (setup, clock, results) fills the dict `results`.
      rows: from the results to lines (what, value) of the summary.
    """

    name: str
    about: str
    measure: Callable[[Setup, Clock, dict[str, Any]], None]
    rows: Callable[[dict[str, Any]], list[tuple[str, str]]]


def run(
    parts: Sequence[Part], setup: Setup, clock: Clock, facts: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Runs the parts in their order.

    A part gets its share of the budget, the last one all that is left; it begins if at least half
    of its share is left. A part that raises is recorded with its error, and what it had measured.

    Args:
      parts: the most valuable first.
      setup: what they are given.
      clock: of the suite.
      facts: what every JSON file begins with: device, versions, commit.

    Returns:
      The record of each part by its name, as in its file.
    """
    shares = {part.name: setup.sizes.shares[part.name] for part in parts}
    whole = clock.left / sum(shares.values())
    records = {}
    for part in parts:
        seconds = shares[part.name] * whole
        last = part is parts[-1]
        record: dict[str, Any] = {"part": part.name, "about": part.about, **facts}
        if not clock.fits(seconds / 2):
            record |= {"status": NOT_STARTED, "results": {}}
            setup.notice(f"{part.name}: {NOT_STARTED} ({clock.left:.0f} s left)")
        else:
            own = clock.part(clock.left - SECONDS_TO_END if last else seconds)
            setup.notice(f"{part.name}: {part.about}; {own.left:.0f} s")
            record |= _measured(part, setup, own)
            setup.notice(f"{part.name}: {record['status']}, {record['seconds']:.1f} s")
        records[part.name] = record
        write_json(setup.out / f"{part.name}.json", record)
    return records


def _measured(part: Part, setup: Setup, clock: Clock) -> dict[str, Any]:
    start = time.monotonic()
    results: dict[str, Any] = {}
    record: dict[str, Any] = {"results": results}
    try:
        part.measure(setup, clock, results)
        record["status"] = MEASURED if results else NOTHING
    except Exception as error:
        traceback.print_exc()
        record |= {"status": FAILED, "error": one_line(error)}
    record["seconds"] = time.monotonic() - start
    return record


def one_line(error: BaseException) -> str:
    """The kind of an error and the beginning of its message."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:300]}"
