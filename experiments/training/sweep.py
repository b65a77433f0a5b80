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

# What conclusions report, each with the endpoint that it was taken at.
REPORTED = {
    "validation": statistics.BEST,
    "test": statistics.BEST,
    "train": statistics.LAST,
    "final_validation": statistics.LAST,
    "final_test": statistics.LAST,
    "gap": statistics.LAST,
}
MOST_RUNS = 10_000
_SWITCH = {"true": True, "false": False}


def sweepable(config: type[Config]) -> dict[str, Leaf]:
    """The settings that can be swept, by the names of their flags: numbers, choices, switches."""
    return {
        leaf.flag: leaf
        for leaf in leaves(config)
        if leaf.has_flag and (leaf.type in (bool, int, float) or leaf.field.metadata["choices"])
    }


def parse_sweep(text: str, config: type[Config], flag: str = "sweep") -> tuple[str, list[Any]]:
    """ "name:value,value,..." to (name, values), each value once.

    Raises:
      ConfigError: naming the flag, where the name or a value is not accepted.
    """
    known = sweepable(config)
    name, colon, values = text.partition(":")
    if not colon or name not in known:
        raise ConfigError(
            flag, repr(text), f"NAME:VALUE,VALUE,... with NAME one of {', '.join(known)}"
        )
    leaf = known[name]
    parsed = []
    for value in values.split(","):
        try:
            parsed.append(_SWITCH[value] if leaf.type is bool else leaf.type(value))
        except (KeyError, ValueError) as error:
            kind = {bool: "true or false", int: "integers", float: "numbers"}[leaf.type]
            raise ConfigError(flag, repr(text), f"values of {name} that are {kind}") from error
        try:  # Here, because a configuration that does not use the setting would take any value.
            check(leaf.field, parsed[-1])
        except ConfigError as error:
            raise ConfigError(flag, error.got, f"{name}: {error.accepted}") from error
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
    unused = {name for name, _ in sweeps}
    for change in changes:
        try:
            config = with_settings(baseline, change)
        except ConfigError as error:
            raise ConfigError("sweep", error.got, f"{error.field}: {error.accepted}") from error
        unused -= record(config).keys()
        name = ",".join(f"{key}={text_of(value)}" for key, value in change.items())
        runs.setdefault(_key(config), Run(name, config))
    if unused:
        raise ConfigError("sweep", sorted(unused)[0], "a setting that at least one run uses")
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
      which: one of `REPORTED`; "gap" is "train" - "final_validation".
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
        "final_test": lambda t: t.get(f"test_{name}"),
        "gap": lambda t: t[f"train_{name}"] - t[f"validation_{name}"],
    }[which]
    return {t["seed"]: take(t) for t in run["trials"] if "best" in t}


def swept(run: dict[str, Any]) -> str | None:
    """The name of the setting that a sweep varied in this run; None for the baseline.

    Of a grid, which varies several at once, it is "combination".
    """
    if "," in run["name"]:
        return "combination"
    name, equals, _ = run["name"].partition("=")
    return name if equals else None


def chosen(runs: Sequence[dict[str, Any]], headline: Headline) -> dict[str, dict[str, Any]]:
    """For each swept setting the run with the best validation headline; the baseline competes."""
    baseline, *others = runs
    names = [name for name in dict.fromkeys(swept(run) for run in others) if name]
    return {
        name: best_by_validation(
            [baseline, *ended([run for run in others if swept(run) == name], headline)], headline
        )
        for name in names
    }


def conclusions(
    runs: Sequence[dict[str, Any]],
    headline: Headline,
    confirmed: Sequence[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """For each swept setting its value with the best validation headline, against the baseline.

    Validation and test results of one network rise and fall together, so the value that is chosen
    on some seeds looks too good in the test results of the same seeds, although the choice does not
    see them. Only trials of other seeds tell what the value is worth.

    Args:
      runs: of the sweep's summary, the baseline first.
      headline: the summary's.
      confirmed: the baseline and the chosen runs, trained on seeds that did not choose.

    Returns:
      For each setting: "setting", the chosen run's "name", and for each of `REPORTED` the mean,
      std, n, the paired difference to the baseline with its 95 % interval, and the endpoint, all in
      the sweep. With `confirmed` also "confirmed": the same of the fresh seeds, and "seeds"; None
      where the baseline's own value was chosen.
    """
    baseline = runs[0]
    fresh = {run["name"]: run for run in confirmed or ()}
    rows = []
    for name, run in {"none": baseline, **chosen(runs, headline)}.items():
        row = {"setting": name, "chosen": run["name"], **_compared(baseline, run, headline)}
        if confirmed is not None:
            own = fresh.get(run["name"]) if run is not baseline else None
            row["confirmed"] = own and on_fresh_seeds(confirmed[0], own, headline)
        rows.append(row)
    return rows


def on_fresh_seeds(
    baseline: dict[str, Any], run: dict[str, Any], headline: Headline
) -> dict[str, Any]:
    """What a chosen run and the baseline have on seeds that did not choose; see `conclusions`."""
    seeds = [trial["seed"] for trial in run["trials"]]
    return {"seeds": seeds, **_compared(baseline, run, headline)}


def _compared(
    baseline: dict[str, Any], run: dict[str, Any], headline: Headline
) -> dict[str, dict[str, Any]]:
    cells = {}
    for which, endpoint in REPORTED.items():
        found = by_seed(run, which, headline)
        pair = statistics.paired(by_seed(baseline, which, headline), found)
        cells[which] = statistics.describe(list(found.values())) | {
            "difference": pair["difference"],
            "interval": pair["interval"],
            "endpoint": endpoint,
        }
    return cells


def conclusions_table(rows: Sequence[dict[str, Any]], headline: Headline) -> str:
    """The conclusions as text: in the sweep, and on fresh seeds where there are any."""
    text = _table(
        rows,
        f"{headline.label}, chosen by validation; differences to the baseline on the seeds that "
        "chose, which flatter the choice [95 %]",
        headline.scale,
    )
    confirmed = [row for row in rows if row.get("confirmed")]
    if confirmed:
        text += f"\n\n{confirmed_table(confirmed, headline)}"
    elif any("confirmed" in row for row in rows):
        text += "\n\nnothing to confirm: no value was chosen over the baseline's own"
    return text


def confirmed_table(rows: Sequence[dict[str, Any]], headline: Headline) -> str:
    """The "confirmed" of rows with "setting" and "chosen", as text."""
    title = f"{headline.label}, confirmed on fresh seeds; differences to the baseline [95 %]"
    return _table([row | row["confirmed"] for row in rows], title, headline.scale)


def _table(rows: Sequence[dict[str, Any]], title: str, scale: float) -> str:
    lines = [
        title,
        f"test: {statistics.BEST}; train - validation: {statistics.LAST}",
        f"{'setting':<18}{'chosen':<26}{'test':>7}  {'difference':<24}{'train - validation':>19}"
        "  difference",
    ]
    for row in rows:
        cells = []
        for which in ("test", "gap"):
            mean = row[which]["mean"]
            cells.append("-" if mean is None else f"{scale * mean:.2f}")
        lines.append(
            f"{row['setting']:<18}{row['chosen']:<26}{cells[0]:>7}  "
            f"{_difference(row['test'], scale):<24}{cells[1]:>19}  "
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


def text_of(value: Any) -> str:
    """A value of a setting, as it is written in the name of a run."""
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
