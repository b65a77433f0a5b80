"""--tune: each metric at the best value of its own of one setting, chosen by validation.

First every metric is trained at every value, in WORKDIR/tune, on seeds that no trial has, and
without the validation examples. Then the trials are trained on all training examples: every metric
at the value of the flag, and every metric at its own best.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from experiments.data.dataset import Dataset
from experiments.data.validation import with_validation
from experiments.figures import training as figures
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json
from experiments.system.output import say
from experiments.training import processes, statistics, sweep
from experiments.training.settings import Config, at_least, get, record, with_settings
from experiments.training.study import MOST_SEEDS, Run

FIRST_SEED = 1_000_000  # above the seeds of trials, which usually begin at 0
VALIDATION = 0.1

Train = Callable[..., dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What --tune asks for.

    Attributes:
      setting: the name of the setting that is tuned.
      values: what is tried.
      seeds: those that it is tried on.
    """

    setting: str
    values: Sequence[Any]
    seeds: Sequence[int]


def define(values: flags.FlagValues, where: dict[str, Any]) -> None:
    """Defines --tune and --tune_trials."""
    flags.DEFINE_string(
        "tune", None,
        "NAME:VALUE,VALUE,... trains each --metric at each value first, on seeds of their own and "
        "without the validation examples (--validation, or a tenth where neither it nor the "
        "dataset says which); then the trials, at the same value for all and at each metric's "
        "best.", **where,
    )  # fmt: skip
    # One is too few: on CIFAR-10 it chose a rate that was 2.6 points worse on ten fresh seeds.
    flags.DEFINE_integer("tune_trials", 3, "Seeds on which --tune tries each value.", **where)


def asked(values: flags.FlagValues, config: type[Config], seeds: Sequence[int]) -> Tuning | None:
    """What --tune asks for, or None.

    Args:
      values: the parsed flags.
      config: the experiment's class.
      seeds: of the trials.

    Raises:
      ConfigError: naming the flag.
    """
    at_least("tune_trials", values.tune_trials, 1)
    if values.tune_trials > MOST_SEEDS:
        raise ConfigError("tune_trials", values.tune_trials, f"1 to {MOST_SEEDS}")
    if values.tune is None:
        return None
    if "metric" not in values:
        raise ConfigError("tune", values.tune, "an experiment with --metric")
    for other in ("sweep", "random_search"):
        if values[other].value:
            raise UserError(f"--tune and --{other}: got both; accepted: one of them")
    setting, tried = sweep.parse_sweep(values.tune, config, flag="tune")
    if setting == "metric":
        raise ConfigError("tune", values.tune, "another setting; --metric names the metrics")
    own = range(FIRST_SEED, FIRST_SEED + values.tune_trials)
    if set(own) & set(seeds):
        raise ConfigError("seed", seeds[0], f"seeds that --tune does not use ({own[0]} and on)")
    return Tuning(setting, tried, own)


def check_unchanged(tuning: Tuning, path: pathlib.Path, resume: bool) -> None:
    """Raises before the tuning what would be found after it: the workdir holds another study.

    Args:
      tuning: what is asked for.
      path: the workdir of the study.
      resume: whether --resume is given.

    Raises:
      UserError: trials were begun there, and --resume is not given or the tuning was another.
    """
    if not (path / "config.json").exists():
        return
    if not resume:
        raise UserError(
            f"workdir: {path} holds a run already; add --resume to go on with it, or name a new "
            "folder"
        )
    chosen = path / "tuning.json"
    if not chosen.exists():
        raise UserError(
            f"tune: the trials in {path} were begun without it; accepted: no --tune, or a new "
            "folder"
        )
    before = json.loads(chosen.read_text(encoding="utf-8"))
    asked = json.loads(json.dumps(dataclasses.asdict(tuning) | {"seeds": list(tuning.seeds)}))
    was = {name: before.get(name) for name in asked}
    if was != asked:
        raise UserError(
            f"tune: the trials in {path} were begun after {_described(was)}, and "
            f"{_described(asked)} is asked for; accepted: the same, or a new folder"
        )


def choose(
    tuning: Tuning,
    runs: Sequence[Run],
    dataset: Dataset,
    validation: float | None,
    path: pathlib.Path,
    train: Train,
) -> tuple[list[Run], dict[str, Any]]:
    """Tries every value for every run, and returns the runs of the trials.

    Args:
      tuning: what is tried.
      runs: one for each metric, at the value that all share; the baseline first.
      dataset: all its training examples are for the trials.
      validation: the share of them that the choice is made on. None takes the dataset's own
        validation split, or a tenth where it has none.
      path: the workdir of the study; tune/ and tuning.json are written there.
      train: (runs, dataset, workdir, seeds) to a summary.

    Returns:
      The runs of the trials, those that share the value first, and what tuning.json holds.

    Raises:
      ConfigError: a value is not accepted.
      UserError: no value ended in a number for one of the metrics.
    """
    if validation is not None or not dataset.validation:
        split = with_validation(dataset, VALIDATION if validation is None else validation)
    else:
        split = dataset
    tried = {run.name: _tried(run, tuning) for run in runs}
    folder = path / "tune"
    say(f"tuning {tuning.setting} in {folder}")
    everything = [run for candidates in tried.values() for run in candidates]
    summary = train(everything, split, workdir=folder, seeds=tuning.seeds)
    if processes.is_first():
        figures.draw(folder, summary)
    say(f"\n{statistics.table(summary)}\n")
    headline = statistics.headline_of(summary)
    rows = {row["name"]: row for row in summary["runs"]}
    final, chosen = list(runs), {}
    for run in runs:
        ended = sweep.ended([rows[candidate.name] for candidate in tried[run.name]], headline)
        if not ended:
            raise UserError(f"tune: no value of {tuning.setting} ended in a number for {run.name}")
        best = sweep.best_by_validation(ended, headline)
        config = next(c.config for c in tried[run.name] if c.name == best["name"])
        name = run.name
        if record(config) != record(run.config):
            name = best["name"]
            final.append(Run(name, config))
        found = statistics.describe(sweep.values(best, "validation", headline))
        value = get(config, tuning.setting)
        chosen[run.name] = {"value": value, "run": name, "validation": found}
        _warn_at_the_edge(run.name, value, tuning)
    result = {
        "setting": tuning.setting,
        "values": list(tuning.values),
        "seeds": list(tuning.seeds),
        "validation_examples": len(split.validation),
        "chosen": chosen,
    }
    if processes.is_first():
        write_json(path / "tuning.json", result)
    return final, result


def tables(summary: dict[str, Any], result: dict[str, Any]) -> str:
    """Two tables: every metric at the value that all share, and each at its best."""
    best = [choice["run"] for choice in result["chosen"].values()]
    shared = list(result["chosen"])
    values = ", ".join(
        f"{metric} {sweep.text_of(choice['value'])}" for metric, choice in result["chosen"].items()
    )
    return (
        f"the same {result['setting']} for all: {_table(summary, shared)}\n\n"
        f"each at its best {result['setting']} by validation ({values}): {_table(summary, best)}"
    )


def _table(summary: dict[str, Any], names: Sequence[str]) -> str:
    by_name = {run["name"]: run for run in summary["runs"]}
    runs = [by_name[name] for name in names]
    comparison = statistics.compare(runs, statistics.headline_of(summary))
    return statistics.table(summary | {"runs": runs, "comparison": comparison})


def _described(tuning: dict[str, Any]) -> str:
    values = ",".join(sweep.text_of(value) for value in tuning["values"])
    return f"--tune={tuning['setting']}:{values} --tune_trials={len(tuning['seeds'])}"


def _tried(run: Run, tuning: Tuning) -> list[Run]:
    """One run for each value that makes a difference: lam makes none under l2."""
    found: dict[str, Run] = {}
    for value in tuning.values:
        try:
            config = with_settings(run.config, {tuning.setting: value})
        except ConfigError as error:
            raise ConfigError("tune", error.got, f"{error.field}: {error.accepted}") from error
        name = f"{run.name},{tuning.setting}={sweep.text_of(value)}"
        found.setdefault(repr(sorted(record(config).items())), Run(name, config))
    return list(found.values())


def _warn_at_the_edge(metric: str, value: Any, tuning: Tuning) -> None:
    numbers = [x for x in tuning.values if isinstance(x, int | float)]
    if len(numbers) > 1 and value in (min(numbers), max(numbers)):
        say(
            f"{metric}: the best {tuning.setting}, {sweep.text_of(value)}, is at the end of what "
            "was tried; a value beyond it may be better"
        )
