"""Many settings in one run: sweeps over one setting, and random search over several."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.system.errors import UserError
from experiments.training import statistics
from experiments.training.config import TrainConfig, at_least
from experiments.training.study import Run


def parse_sweep(text: str, accepted: Sequence[str]) -> tuple[str, list[float]]:
    """ "name:value,value,..." to (name, values).

    Raises:
      UserError: naming --sweep, where the name is not accepted or a value is not a number.
    """
    name, colon, values = text.partition(":")
    if not colon or name not in accepted:
        raise UserError(
            f"--sweep: got {text!r}; accepted is NAME:VALUE,VALUE,... with NAME one of "
            f"{', '.join(accepted)}"
        )
    try:
        numbers = [float(v) for v in values.split(",")]
    except ValueError as error:
        raise UserError(f"--sweep: got {text!r}; accepted values are numbers") from error
    return name, list(dict.fromkeys(numbers))


def sweep_runs(baseline: TrainConfig, sweeps: Sequence[tuple[str, Sequence[float]]]) -> list[Run]:
    """The baseline first, then one run for each value that differs from the baseline's."""
    runs = {"baseline": Run("baseline", baseline)}
    for name, values in sweeps:
        for value in values:
            if value != getattr(baseline, name):
                text = f"{value:g}" if float(f"{value:g}") == value else repr(value)
                config = dataclasses.replace(baseline, **{name: value})
                runs[f"{name}={text}"] = Run(f"{name}={text}", config)
    return list(runs.values())


def random_runs(
    baseline: TrainConfig, ranges: dict[str, tuple[float, float]], count: int, seed: int
) -> list[Run]:
    """The baseline first, then `count` runs whose settings are drawn log-uniformly.

    Args:
      baseline: what the others are compared with.
      ranges: (low, high) of each setting that is drawn.
      count: runs besides the baseline.
      seed: of the draws.
    """
    at_least("seed", seed, 0)
    rng = np.random.default_rng(seed)
    runs = [Run("baseline", baseline)]
    for index in range(count):
        drawn = {
            name: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")
            for name, (low, high) in ranges.items()
        }
        runs.append(Run(f"random_{index}", dataclasses.replace(baseline, **drawn)))
    return runs


def ended(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of a summary of which at least one trial ended."""
    return [run for run in runs if accuracies(run, "validation")]


def best_by_validation(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The run of a summary whose trials have the greatest mean of best validation accuracy."""
    return max(runs, key=lambda run: statistics.describe(accuracies(run, "validation"))["mean"])


def accuracies(run: dict[str, Any], which: str) -> list[float]:
    """One number for each trial that ended.

    Args:
      run: one of a summary's "runs".
      which: "validation" and "test" at the best validation step, "train" and
        "final_validation" at the end, "gap" their difference.
    """
    return list(by_seed(run, which).values())


def by_seed(run: dict[str, Any], which: str) -> dict[int, float]:
    """The same, by seed."""
    take = {
        "validation": lambda t: t["best"]["validation_accuracy"],
        "test": lambda t: t["best"]["test_accuracy"],
        "train": lambda t: t["train_accuracy"],
        "final_validation": lambda t: t["validation_accuracy"],
        "gap": lambda t: t["train_accuracy"] - t["validation_accuracy"],
    }[which]
    return {t["seed"]: take(t) for t in run["trials"] if "error" not in t}


def swept(run: dict[str, Any]) -> str | None:
    """The name of the setting that a sweep varied in this run, or None for the baseline."""
    name, equals, _ = run["name"].partition("=")
    return name if equals else None


def conclusions(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each swept setting its value with the best validation accuracy, against the baseline.

    The value is chosen on the validation set (the baseline's own value competes), the accuracy
    reported on the test set, so the choice does not flatter it.

    Returns:
      For each setting: "setting", the chosen run's "name", and for "test", "train",
      "final_validation" and "gap" the mean, std, n and the paired difference to the baseline with
      its 95 % interval.
    """
    baseline, *others = runs
    names = list(dict.fromkeys(swept(run) for run in others))
    rows = []
    for name in [None, *names]:
        candidates = ended([run for run in others if name and swept(run) == name])
        chosen = best_by_validation([baseline, *candidates])
        row = {"setting": name or "none", "chosen": chosen["name"]}
        for which in ("validation", "test", "train", "final_validation", "gap"):
            values = by_seed(chosen, which)
            pair = statistics.paired(by_seed(baseline, which), values)
            row[which] = statistics.describe(list(values.values())) | {
                "difference": pair["difference"],
                "interval": pair["interval"],
            }
        rows.append(row)
    return rows


def conclusions_table(rows: Sequence[dict[str, Any]]) -> str:
    """The conclusions as text, in percent."""
    lines = [
        "chosen by validation; differences to the baseline on the same seeds [95 %], in percent",
        f"{'setting':<18}{'chosen':<26}{'test':>7}  {'difference':<24}{'train - validation':>19}"
        "  difference",
    ]
    for row in rows:
        lines.append(
            f"{row['setting']:<18}{row['chosen']:<26}{100 * row['test']['mean']:>7.2f}  "
            f"{_difference(row['test']):<24}{100 * row['gap']['mean']:>19.2f}  "
            f"{_difference(row['gap'])}"
        )
    return "\n".join(lines)


def _difference(cell: dict[str, Any]) -> str:
    if cell["difference"] is None:  # They share no seed of which both trials ended.
        return "-"
    text = f"{100 * cell['difference']:+.2f}"
    if cell["interval"]:
        low, high = cell["interval"]
        text += f" [{100 * low:+.2f}, {100 * high:+.2f}]"
    return text
