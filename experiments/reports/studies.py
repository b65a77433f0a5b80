"""Joins the results of finished studies and compares their runs: what `experiments.report` writes.

A column is what one column of the paper's table 2 is: one network on one dataset under one
optimizer at one batch size. The parts of a column may have been trained apart (--trial_range, or a
metric in each), as long as they are one study but for their metrics.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.reports import paper_results
from experiments.reports.paper_results import Reported
from experiments.system.errors import ConfigError, UserError
from experiments.training import statistics
from experiments.training.checkpoints import differences
from experiments.training.config import MetricConfig
from experiments.training.settings import leaves
from experiments.training.task import Headline
from experiments.training.workdir import parse_metrics

SAME_VALUE, AT_ITS_BEST = "the same value for all", "each at its best"
_METRIC_SETTINGS = {leaf.flag for leaf in leaves(MetricConfig)}
_SMOOTH = 0.03  # With an l2_weight above it the smooth part of the Sobolev gradient is small.
_PREFIXES = ("", "generator_", "discriminator_")
# What two trainings of one trial on one machine need not share.
_NOT_RESULTS = ("images_per_second",)


@dataclasses.dataclass(frozen=True)
class Part:
    """What one workdir holds.

    Attributes:
      path: the workdir, as it was named.
      settings: "settings" of config.json.
      summary: summary.json; None where no trial has ended.
      metrics: the lines of metrics.jsonl.
      tuning: tuning.json of a study that was tuned, or None.
      record: the rest of config.json: command, environment, when it was begun.
    """

    path: str
    settings: dict[str, Any]
    summary: dict[str, Any] | None = None
    metrics: Sequence[dict[str, Any]] = ()
    tuning: dict[str, Any] | None = None
    record: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def first(self) -> dict[str, Any]:
        """The settings of the first run, the baseline."""
        return next(iter(self.settings["runs"].values()))


@dataclasses.dataclass(frozen=True)
class Column:
    """Parts that belong together, joined.

    Attributes:
      title: network, optimizer, batch size and dataset in words.
      model: the network.
      dataset: the name of the dataset.
      optimizer: "sgd", ...; None where the experiment has no such setting.
      batch_size: None where the experiment has no such setting.
      headline: the number that is compared.
      runs: settings by the name of the run, the baseline first.
      trials: rows of summary.json by run and seed, each trial once.
      missing: by run the seeds that the parts ask for, or leave out between them, and do not have.
      duplicates: (run, seed, workdirs) of trials that several parts have, with one result.
      metrics: the lines of metrics.jsonl, of each trial once.
      best: by metric the name of the run at the metric's own best value, where it was tuned.
    """

    title: str
    model: str
    dataset: str
    optimizer: str | None
    batch_size: int | None
    headline: Headline
    runs: dict[str, dict[str, Any]]
    trials: dict[str, dict[int, dict[str, Any]]]
    missing: dict[str, list[int]]
    duplicates: list[tuple[str, int, list[str]]]
    metrics: list[dict[str, Any]]
    best: dict[str, str] = dataclasses.field(default_factory=dict)

    def values(self, run: str) -> dict[int, float]:
        """The test headline of each trial that ended, by its seed."""
        key = f"test_{self.headline.name}"
        rows = self.trials[run].items()
        return {seed: row[key] for seed, row in rows if "error" not in row}

    def diverged(self, run: str) -> list[int]:
        """The seeds of the trials that ended in an error."""
        return [seed for seed, row in self.trials[run].items() if "error" in row]

    @property
    def summary(self) -> dict[str, Any]:
        """The column as a summary.json, for the figures."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "headline": dataclasses.asdict(self.headline),
            "runs": [
                {
                    "name": run,
                    "settings": settings,
                    "trials": list(self.trials[run].values()),
                    **statistics.describe(list(self.values(run).values())),
                }
                for run, settings in self.runs.items()
            ],
        }


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: a run, and what it is compared with.

    Attributes:
      column: where it belongs.
      run: its name.
      mean, std, n: of the test headline over the trials that ended; None where there is none.
      diverged, missing: numbers of trials.
      baseline: the name of the run that it is compared with; None for a baseline.
      kind: `SAME_VALUE` or `AT_ITS_BEST` of the setting that was tuned; None where none was.
      pairs: seeds of which both have a trial that ended.
      difference: run - baseline, mean over the pairs.
      interval: 95 % of Student's t on the paired differences, or None.
      error_reduced: in percent of the baseline's mean error.
      p_t, p_wilcoxon: see `statistics.p_values`.
      holm_t, holm_wilcoxon: adjusted over all comparisons of the report.
      paper: what the paper reports for these settings, or None.
    """

    column: Column
    run: str
    mean: float | None
    std: float | None
    n: int
    diverged: int
    missing: int
    baseline: str | None = None
    kind: str | None = None
    pairs: int = 0
    difference: float | None = None
    interval: tuple[float, float] | None = None
    error_reduced: float | None = None
    p_t: float | None = None
    p_wilcoxon: float | None = None
    holm_t: float | None = None
    holm_wilcoxon: float | None = None
    paper: Reported | None = None


def read(path: str) -> Part:
    """Reads one workdir.

    Raises:
      UserError: it has no config.json, or a file in it is damaged.
    """
    folder = pathlib.Path(path).expanduser()
    config = _json(folder / "config.json")
    if config is None:
        accepted = "the workdir of a training command"
        raise ConfigError("workdir", path, f"{accepted} (there is no config.json)")
    try:
        text = (folder / "metrics.jsonl").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        text = ""
    except OSError as error:
        raise UserError(f"workdir: {folder / 'metrics.jsonl'} cannot be read ({error})") from error
    lines, _ = parse_metrics(text)  # A kill cuts a line; resuming writes it again.
    try:
        settings = config["settings"]
        part = Part(
            path,
            settings,
            _json(folder / "summary.json"),
            lines,
            _json(folder / "tuning.json"),
            {name: value for name, value in config.items() if name != "settings"},
        )
        settings["dataset"]["fingerprint"], settings["seeds"], part.first["metric"]
        if part.summary is not None:
            Headline(**part.summary["headline"])
            [trial["seed"] for run in part.summary["runs"] for trial in run["trials"]]
    except (KeyError, TypeError, AttributeError, StopIteration) as error:
        raise UserError(
            f"workdir: {path} is not of this version or is damaged ({type(error).__name__}: "
            f"{error}); accepted: the workdir of a training command"
        ) from error
    return part


def join(parts: Iterable[Part]) -> list[Column]:
    """Joins parts into columns, in the order in which they came.

    Raises:
      UserError: two parts of a column differ in more than their metrics (each setting is named),
        hold different results of one trial, or no trial has ended in any part of a column.
    """
    groups: dict[tuple, list[Part]] = {}
    for part in parts:
        first = part.first
        key = (
            part.settings["experiment"],
            first.get("model", part.settings["experiment"]),
            part.settings["dataset"]["name"],
            first.get("optimizer"),
            first.get("batch_size"),
        )
        groups.setdefault(key, []).append(part)
    return [_column(key[1:], group) for key, group in groups.items()]


def compare(columns: Sequence[Column]) -> list[Row]:
    """The table's rows: each run against its column's first one, and the tuned ones at their best.

    The p-values of all comparisons together are one family for Holm's adjustment.
    """
    rows = []
    for column in columns:
        first, *others = column.runs
        only_best = set(column.best.values()) - {_same_rate(column, m) for m in column.best}
        rows.append(_row(column, first))
        kind = SAME_VALUE if column.best else None
        rows += [_row(column, run, first, kind) for run in others if run not in only_best]
        if column.best:
            best_first, *best_others = column.best.values()
            if best_first in only_best:
                rows.append(_row(column, best_first))
            rows += [_row(column, run, best_first, AT_ITS_BEST) for run in best_others]
    # A pair that is compared at the same settings and at its best is one test, not two.
    family = {_pair(row): row for row in rows}
    holm_t = statistics.holm([row.p_t for row in family.values()])
    holm_w = statistics.holm([row.p_wilcoxon for row in family.values()])
    adjusted = dict(zip(family, zip(holm_t, holm_w, strict=True), strict=True))
    return [
        dataclasses.replace(
            row, **dict(zip(("holm_t", "holm_wilcoxon"), adjusted[_pair(row)], strict=True))
        )
        for row in rows
    ]


def remarks(columns: Sequence[Column]) -> list[str]:
    """Which trials are missing, came twice or diverged, and what a name hides, one line each."""
    lines = []
    for column in columns:
        for run, settings in column.runs.items():
            where = f"{column.title}, {run}"
            weight = settings.get("l2_weight", 0.0)
            if settings.get("metric") == "sobolev" and weight > _SMOOTH:
                told = f"sobolev with l2_weight {weight:g} is nearly re-weighted L2 of that weight"
                lines.append(f"{told}: {where}")
            if column.missing[run]:
                lines.append(f"missing: {where}, seeds {_seeds(column.missing[run])}")
            if column.diverged(run):
                lines.append(f"diverged: {where}, seeds {_seeds(column.diverged(run))}")
        for run, seed, paths in column.duplicates:
            lines.append(
                f"duplicate, counted once: {column.title}, {run}, seed {seed}, in "
                f"{', '.join(paths)}"
            )
    return lines


def _pair(row: Row) -> tuple[str, str, str | None]:
    return row.column.title, row.run, row.baseline


def _same_rate(column: Column, metric: str) -> str | None:
    """The run of a metric at the rate that all have."""
    return metric if metric in column.runs else None


def _row(column: Column, run: str, baseline: str | None = None, kind: str | None = None) -> Row:
    values = column.values(run)
    settings = column.runs[run]
    row = Row(
        column,
        run,
        **statistics.describe(list(values.values())),
        diverged=len(column.diverged(run)),
        missing=len(column.missing[run]),
        paper=_reported(column, run, settings),
    )
    if baseline is None:
        return row
    before = column.values(baseline)
    pair = statistics.paired(before, values, headline=column.headline)
    p = statistics.p_values(before, values)
    return dataclasses.replace(
        row,
        baseline=baseline,
        kind=kind,
        pairs=pair["n"],
        difference=pair["difference"],
        interval=tuple(pair["interval"]) if pair["interval"] else None,
        error_reduced=pair["error_reduced_percent"],
        p_t=p["t"],
        p_wilcoxon=p["wilcoxon"],
    )


def _reported(column: Column, run: str, settings: dict[str, Any]) -> Reported | None:
    metric = settings.get("metric")
    if run != metric:  # a swept or tuned run is not one of the paper's
        return None
    return paper_results.reported(
        column.dataset, column.model, column.optimizer, column.batch_size, metric
    )


def _column(key: tuple, parts: list[Part]) -> Column:
    model, dataset, optimizer, batch_size = key
    _check_one_study(parts)
    runs: dict[str, dict[str, Any]] = {}
    for part in parts:
        runs |= part.settings["runs"]
    trials, duplicates, metrics = _trials(parts, runs)
    summary = next((part.summary for part in parts if part.summary is not None), None)
    if summary is None:
        named = ", ".join(part.path for part in parts)
        raise UserError(f"workdir: no trial has ended in {named}; accepted: one or more")
    seeds = sorted({seed for part in parts for seed in part.settings["seeds"]})
    wanted = range(seeds[0], seeds[-1] + 1)  # a study's seeds follow each other
    batch = None if batch_size is None else f"batch {batch_size}"
    words = [word for word in (model, optimizer, batch, dataset) if word]
    tuning = [part.tuning for part in parts if part.tuning is not None]
    return Column(
        title=", ".join(words),
        model=model,
        dataset=dataset,
        optimizer=optimizer,
        batch_size=batch_size,
        headline=statistics.headline_of(summary),
        runs=runs,
        trials=trials,
        missing={run: [s for s in wanted if s not in trials[run]] for run in runs},
        duplicates=duplicates,
        metrics=metrics,
        best={m: c["run"] for m, c in tuning[0]["chosen"].items()} if tuning else {},
    )


def _check_one_study(parts: list[Part]) -> None:
    """Raises a UserError unless the parts differ in nothing but their metrics and seeds."""
    reference = parts[0]
    for part in parts[1:]:
        found = differences(
            {"dataset": reference.settings["dataset"], **_without_metric(reference.first)},
            {"dataset": part.settings["dataset"], **_without_metric(part.first)},
        )
        for other in parts[: parts.index(part)]:
            for run in part.settings["runs"].keys() & other.settings["runs"].keys():
                both = (other.settings["runs"][run], part.settings["runs"][run])
                found += [f"{run}: {text}" for text in differences(*both)]
        if reference.tuning and part.tuning:
            found += differences(reference.tuning["chosen"], part.tuning["chosen"], ".tuned")
        if found:
            told = "; ".join(dict.fromkeys(x.replace("asked for", "here") for x in found))
            raise UserError(
                f"workdir: {part.path} is of another configuration than {reference.path} "
                f"({told}); accepted: parts of one study, or a report of each"
            )


def _without_metric(settings: dict[str, Any]) -> dict[str, Any]:
    of_metrics = {prefix + name for prefix in _PREFIXES for name in _METRIC_SETTINGS}
    return {name: value for name, value in settings.items() if name not in of_metrics}


def _trials(
    parts: list[Part], runs: dict[str, dict[str, Any]]
) -> tuple[dict[str, dict[int, dict]], list[tuple[str, int, list[str]]], list[dict]]:
    """Every trial once, those that came twice, and the lines of metrics of each trial once.

    Raises:
      UserError: one trial has two results.
    """
    found: dict[tuple[str, int], list[tuple[Part, dict]]] = {}
    for part in parts:
        for run in part.summary["runs"] if part.summary else []:
            for row in run["trials"]:
                found.setdefault((run["name"], row["seed"]), []).append((part, row))
    trials: dict[str, dict[int, dict]] = {run: {} for run in runs}
    duplicates, metrics = [], []
    for (run, seed), rows in sorted(found.items(), key=lambda item: item[0]):
        owner, row = rows[0]
        paths = [part.path for part, _ in rows]
        for part, other in rows[1:]:
            different = differences(_result(row), _result(other))
            if different:
                told = "; ".join(x.replace("asked for", "here") for x in different)
                raise UserError(
                    f"workdir: {owner.path} and {part.path} contradict each other about {run}, "
                    f"seed {seed} ({told}); accepted: one result of each trial"
                )
        if len(rows) > 1:
            duplicates.append((run, seed, paths))
        trials.setdefault(run, {})[seed] = row
        metrics += [x for x in owner.metrics if (x["run"], x["seed"]) == (run, seed)]
    return trials, duplicates, metrics


def _result(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in _NOT_RESULTS}


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in words, those that follow each other as a range: "0 to 3, 7"."""
    ranges: list[list[int]] = []
    for seed in sorted(seeds):
        if ranges and seed == ranges[-1][1] + 1:
            ranges[-1][1] = seed
        else:
            ranges.append([seed, seed])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges)


def _json(path: pathlib.Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"workdir: {path} cannot be read ({error}); accepted: the workdir of a training command"
        ) from error
