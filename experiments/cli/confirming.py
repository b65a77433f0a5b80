"""--confirm: what a sweep or a random search chose, trained again on seeds that did not choose it.

The value with the best validation results is, in part, the one that its seeds liked best, and its
test results on these seeds are too good for the same reason. So the baseline and every chosen run
are trained in WORKDIR/confirm on seeds of their own, and those differences are reported.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from experiments.data.dataset import Dataset
from experiments.system.errors import ConfigError, UserError
from experiments.system.output import say
from experiments.training import processes, statistics, sweep
from experiments.training.settings import at_least
from experiments.training.study import MOST_SEEDS, Run

FIRST_SEED = 2_000_000  # above the seeds of trials and of --tune
FOLDER = "confirm"


def define(values: flags.FlagValues, where: dict[str, Any]) -> None:
    """Defines --confirm."""
    flags.DEFINE_integer(
        "confirm", None,
        "Fresh seeds on which the baseline and what --sweep or --random_search chose are trained "
        "again, in WORKDIR/confirm; 0: none. Default: as many as --trials with --sweep, 0 with "
        "--random_search and with --trial_range.", **where,
    )  # fmt: skip


def asked(values: flags.FlagValues, seeds: Sequence[int]) -> list[int]:
    """The fresh seeds that the flags ask for.

    Args:
      values: the parsed flags.
      seeds: of the trials.

    Raises:
      ConfigError: naming the flag.
    """
    count = values.confirm
    if count is None:
        count = values.trials if values.sweep and values.trial_range is None else 0
    at_least("confirm", count, 0)
    if count > MOST_SEEDS:
        raise ConfigError("confirm", count, f"0 to {MOST_SEEDS}")
    if values.confirm and not values.sweep and values.random_search is None:
        raise ConfigError("confirm", count, "--confirm with --sweep or --random_search")
    if values.confirm and values.trial_range is not None:
        raise UserError("--confirm and --trial_range: got both; accepted: one of them")
    fresh = list(range(FIRST_SEED, FIRST_SEED + count))
    if set(fresh) & set(seeds):
        accepted = f"seeds that --confirm does not use ({FIRST_SEED} and on)"
        raise ConfigError("seed", seeds[0], accepted)
    return fresh


def confirm(
    summary: dict[str, Any],
    runs: Sequence[Run],
    seeds: Sequence[int],
    dataset: Dataset,
    path: pathlib.Path,
    train: Callable[..., dict[str, Any]],
    searched: bool,
) -> dict[str, Any] | None:
    """Trains what was chosen on fresh seeds; returns the summary of these trials, or None.

    Args:
      summary: of the sweep or the random search.
      runs: its runs, the baseline first.
      seeds: the fresh seeds.
      dataset: as for the trials.
      path: the workdir of the study.
      train: (runs, dataset, workdir, seeds) to a summary.
      searched: whether the runs come from a random search.
    """
    headline = statistics.headline_of(summary)
    if not seeds or not sweep.ended(summary["runs"][:1], headline):
        return None

    def choice() -> list[str]:
        if searched:
            found = [sweep.best_by_validation(sweep.ended(summary["runs"], headline), headline)]
        else:
            found = list(sweep.chosen(summary["runs"], headline).values())
        # What an earlier call confirmed stays, when further trials have led to another choice.
        return [run["name"] for run in found] + _confirmed_before(path / FOLDER)

    names = processes.agreed(choice)  # The first process alone reads the disk.
    chosen = [run for run in runs[1:] if run.name in names]
    if not chosen:
        return None
    say(f"\nconfirming {', '.join(run.name for run in chosen)} in {path / FOLDER}")
    return train([runs[0], *chosen], dataset, workdir=path / FOLDER, seeds=seeds)


def _confirmed_before(folder: pathlib.Path) -> list[str]:
    try:
        return list(json.loads((folder / "config.json").read_text("utf-8"))["settings"]["runs"])
    except (OSError, ValueError, KeyError, TypeError):  # `train` says what is damaged
        return []
