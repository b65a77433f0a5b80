"""One number of each run of a study, and its paired difference to the first run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from experiments.training import statistics

Value = Callable[[dict[str, Any]], float | None]


def ended(run: dict[str, Any]) -> list[dict[str, Any]]:
    """The trials of a run that ended in numbers."""
    return [trial for trial in run["trials"] if "error" not in trial]


def by_seed(run: dict[str, Any], value: Value) -> dict[int, float]:
    """The number of each trial that ended and has one, by its seed."""
    found = {trial["seed"]: value(trial) for trial in ended(run)}
    return {seed: number for seed, number in found.items() if number is not None}


def compared(baseline: dict[str, Any], run: dict[str, Any], value: Value) -> dict[str, Any]:
    """Mean, standard deviation and number of a run, and its difference to another run.

    Args:
      baseline: a run of summary.json.
      run: the run that is described.
      value: the number of a trial; None where the trial has none, which leaves it out.

    Returns:
      "mean", "std", "n", and over the seeds that both have "difference" and "interval" (95 %, see
      `statistics.paired`).
    """
    before, after = by_seed(baseline, value), by_seed(run, value)
    pair = statistics.paired(before, after)
    described = statistics.describe(list(after.values()))
    return described | {"difference": pair["difference"], "interval": pair["interval"]}


def difference_text(cell: dict[str, Any], scale: float = 100, digits: int = 2) -> str:
    """The difference and its interval, or "-" where there is no pair.

    Example:
      >>> difference_text({"difference": 0.015, "interval": [-0.01, 0.04]})
      '+1.50 [-1.00, +4.00]'
    """
    if cell["difference"] is None:
        return "-"
    text = f"{scale * cell['difference']:+.{digits}f}"
    if cell["interval"]:
        low, high = (f"{scale * x:+.{digits}f}" for x in cell["interval"])
        text += f" [{low}, {high}]"
    return text
