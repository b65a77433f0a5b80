"""Many settings in one study: sweeps, grids, random search, and what they conclude."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.system.errors import ConfigError
from experiments.training import statistics
from experiments.training.settings import (
    Config,
    Leaf,
    at_least,
    check,
    get,
    leaves,
    record,
    with_settings,
)
from experiments.training.study import Run
from experiments.training.task import Headline

# What conclusions report: at the best validation step, at the end, and their difference.
REPORTED = ("validation", "test", "train", "final_validation", "gap")
MOST_RUNS = 10_000


def sweepable(config: type[Config]) -> dict[str, Leaf]:
    """The settings that can be swept, by the names of their flags: numbers and choices."""
    return {
        leaf.flag: leaf
        for leaf in leaves(config)
        if leaf.has_flag and (leaf.type in (int, float) or leaf.field.metadata["choices"])
    }


def parse_sweep(text: str, config: type[Config]) -> tuple[str, list[Any]]:
    """ "name:value,value,..." to (name, values), each value once.

    Raises:
      ConfigError: naming sweep, where the name or a value is not accepted.
    """
    known = sweepable(config)
    name, colon, values = text.partition(":")
    if not colon or name not in known:
        raise ConfigError(
            "sweep", repr(text), f"NAME:VALUE,VALUE,... with NAME one of {', '.join(known)}"
        )
    leaf = known[name]
    parsed = []
    for value in values.split(","):
        try:
            parsed.append(leaf.type(value))
        except ValueError as error:
            kind = {int: "integers", float: "numbers"}[leaf.type]
            raise ConfigError("sweep", repr(text), f"values of {name} that are {kind}") from error
        try:  # Here, because a configuration that does not use the setting would take any value.
            check(leaf.field, parsed[-1])
        except ConfigError as error:
            raise ConfigError("sweep", error.got, f"{name}: {error.accepted}") from error
    return name, list(dict.fromkeys(parsed))


def sweep_runs(
    baseline: Config, sweeps: Sequence[tuple[str, Sequence[Any]]], grid: bool = False
) -> list[Run]:
    """The baseline first, then one run for each value, or for each combination of values.

    Settings that are the baseline's own make no run of their own.

    Args:
      baseline: what the others are compared with.
      sweeps: (name of a setting, its values).
      grid: combines every value of each sweep with every value of the others.

    Raises:
      ConfigError: naming sweep, where a value is not accepted.
    """
    if grid:
        names = [name for name, _ in sweeps]
        count = math.prod(len(values) for _, values in sweeps)
        if count > MOST_RUNS:
            raise ConfigError("grid", f"{count} runs", f"at most {MOST_RUNS}")
        products = itertools.product(*(values for _, values in sweeps))
        changes = [dict(zip(names, values, strict=True)) for values in products]
    else:
        changes = [{name: value} for name, values in sweeps for value in values]
    runs = {_key(baseline): Run("baseline", baseline)}
    for change in changes:
        try:
            config = with_settings(baseline, change)
        except ConfigError as error:
            raise ConfigError("sweep", error.got, f"{error.field}: {error.accepted}") from error
        name = ",".join(f"{key}={_text(value)}" for key, value in change.items())
        runs.setdefault(_key(config), Run(name, config))
    return list(runs.values())


def searched(baseline: Config) -> dict[str, tuple[float, float]]:
    """The settings that random search draws for this baseline, each with its range."""
    ranges = {}
    used = record(baseline)
    for leaf in leaves(type(baseline)):
        limits = leaf.field.metadata.get("search")
        if limits and leaf.flag in used and leaf.has_flag:
            scale = get(baseline, leaf.flag) if leaf.field.metadata["search_relative"] else 1.0
            ranges[leaf.flag] = (scale * limits[0], scale * limits[1])
    return ranges


def random_runs(
    baseline: Config, ranges: Mapping[str, tuple[float, float]], count: int, seed: int
) -> list[Run]:
    """The baseline first, then `count` runs whose settings are drawn log-uniformly.

    Args:
      baseline: what the others are compared with.
      ranges: (low, high) of each setting that is drawn.
      count: runs besides the baseline.
      seed: of the draws.
    """
    at_least("seed", seed, 0)
    at_least("random_search", count, 1)
    if count > MOST_RUNS:
        raise ConfigError("random_search", count, f"at most {MOST_RUNS}")
    rng = np.random.default_rng(seed)
    runs = [Run("baseline", baseline)]
    for index in range(count):
        drawn = {
            name: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")
            for name, (low, high) in ranges.items()
        }
        runs.append(Run(f"random_{index}", with_settings(baseline, drawn)))
    return runs


def ended(runs: Sequence[dict[str, Any]], headline: Headline) -> list[dict[str, Any]]:
    """The runs of a summary of which at least one trial ended and was validated."""
    return [run for run in runs if values(run, "validation", headline)]


def best_by_validation(runs: Sequence[dict[str, Any]], headline: Headline) -> dict[str, Any]:
    """The run of a summary whose trials have the best mean of their best validation headline."""

    def mean(run):
        return statistics.describe(values(run, "validation", headline))["mean"]

    return (max if headline.higher_is_better else min)(runs, key=mean)


def values(run: dict[str, Any], which: str, headline: Headline) -> list[float]:
    """The headline of each trial that ended.

    Args:
      run: one of a summary's "runs".
      which: "validation" and "test" at the best validation step, "train" and
        "final_validation" at the end, "gap" their difference.
      headline: the summary's.
    """
    return list(by_seed(run, which, headline).values())


def by_seed(run: dict[str, Any], which: str, headline: Headline) -> dict[int, float]:
    """The headline of each trial that ended, by its seed; see `values`."""
    name = headline.name
    take = {
        "validation": lambda t: t["best"][f"validation_{name}"],
        "test": lambda t: t["best"][f"test_{name}"],
        "train": lambda t: t[f"train_{name}"],
        "final_validation": lambda t: t[f"validation_{name}"],
        "gap": lambda t: t[f"train_{name}"] - t[f"validation_{name}"],
    }[which]
    return {t["seed"]: take(t) for t in run["trials"] if "best" in t}


def swept(run: dict[str, Any]) -> str | None:
    """The name of the setting that a sweep varied in this run; None for the baseline."""
    name, equals, _ = run["name"].partition("=")
    return name if equals else None


def conclusions(runs: Sequence[dict[str, Any]], headline: Headline) -> list[dict[str, Any]]:
    """For each swept setting its value with the best validation headline, against the baseline.

    The value is chosen on the validation split (the baseline's own value competes), the headline
    reported on the test split, so the choice does not flatter it.

    Returns:
      For each setting: "setting", the chosen run's "name", and for each of `REPORTED` the mean,
      std, n and the paired difference to the baseline with its 95 % interval.
    """
    baseline, *others = runs
    names = list(dict.fromkeys(swept(run) for run in others))
    rows = []
    for name in [None, *names]:
        candidates = ended([run for run in others if name and swept(run) == name], headline)
        chosen = best_by_validation([baseline, *candidates], headline)
        row = {"setting": name or "none", "chosen": chosen["name"]}
        for which in REPORTED:
            found = by_seed(chosen, which, headline)
            pair = statistics.paired(by_seed(baseline, which, headline), found)
            row[which] = statistics.describe(list(found.values())) | {
                "difference": pair["difference"],
                "interval": pair["interval"],
            }
        rows.append(row)
    return rows


def conclusions_table(rows: Sequence[dict[str, Any]], headline: Headline) -> str:
    """The conclusions as text."""
    scale = headline.scale
    lines = [
        f"{headline.label}, chosen by validation; differences to the baseline on the same seeds "
        "[95 %]",
        f"{'setting':<18}{'chosen':<26}{'test':>7}  {'difference':<24}{'train - validation':>19}"
        "  difference",
    ]
    for row in rows:
        lines.append(
            f"{row['setting']:<18}{row['chosen']:<26}{scale * row['test']['mean']:>7.2f}  "
            f"{_difference(row['test'], scale):<24}{scale * row['gap']['mean']:>19.2f}  "
            f"{_difference(row['gap'], scale)}"
        )
    return "\n".join(lines)


def _difference(cell: dict[str, Any], scale: float) -> str:
    if cell["difference"] is None:  # No seed of which both trials ended.
        return "-"
    text = f"{scale * cell['difference']:+.2f}"
    if cell["interval"]:
        low, high = cell["interval"]
        text += f" [{scale * low:+.2f}, {scale * high:+.2f}]"
    return text


def _key(config: Config) -> str:
    return repr(sorted(record(config).items()))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
