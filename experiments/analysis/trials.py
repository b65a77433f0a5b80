"""Reading one trial back from the workdir of a training command. Nothing is changed there."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from experiments.system.errors import ConfigError, UserError
from experiments.training.checkpoints import read_latest

CHECKPOINTS = ("best", "last")


@dataclasses.dataclass(frozen=True)
class Recorded:
    """One trial, as config.json describes it.

    Attributes:
      workdir: the folder of the study.
      run: name of the run.
      seed: of the trial.
      settings: of the run, by the names of their flags; those that it did not use are absent.
      dataset: name of the dataset.
      fingerprint: of the dataset.
      data_dir: the folder that the dataset was loaded from; None for an embedded one.
    """

    workdir: pathlib.Path
    run: str
    seed: int
    settings: dict[str, Any]
    dataset: str
    fingerprint: str
    data_dir: str | None


def read(
    workdir: pathlib.Path, experiment: str, run: str | None = None, seed: int | None = None
) -> Recorded:
    """One trial of a study.

    Args:
      workdir: the folder that the training command wrote.
      experiment: the command's name.
      run: name of the run; by default the first.
      seed: of the trial; by default the first.

    Raises:
      ConfigError: the workdir holds no study of this experiment, or no such run or seed.
    """
    accepted = f"a folder that experiments.{experiment} wrote"
    try:
        config = json.loads((workdir / "config.json").read_text("utf-8"))
        settings = config["settings"]
        runs, seeds, data = dict(settings["runs"]), list(settings["seeds"]), settings["dataset"]
        found, dataset, fingerprint = settings["experiment"], data["name"], data["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        got = f"{workdir}, without a readable config.json ({reason})"
        raise ConfigError("workdir", got, accepted) from error
    if found != experiment:
        raise ConfigError("workdir", f"{workdir}, a study of {found}", accepted)
    run = next(iter(runs)) if run is None else run
    if run not in runs:
        raise ConfigError("run", repr(run), ", ".join(runs))
    seed = seeds[0] if seed is None else seed
    if seed not in seeds:
        raise ConfigError("seed", seed, ", ".join(map(str, seeds)))
    return Recorded(workdir, run, seed, runs[run], dataset, fingerprint, config.get("data_dir"))


def read_parameters(trial: Recorded, which: str) -> dict[str, Any]:
    """The parameters of a trial's network, as nested dicts of arrays.

    Args:
      trial: see `read`.
      which: "best" (by validation) or "last".

    Raises:
      ConfigError: `which` is not one of those.
      UserError: there is no such checkpoint, or it is damaged.
    """
    if which not in CHECKPOINTS:
        raise ConfigError("which", repr(which), ", ".join(CHECKPOINTS))
    name = f"seed_{trial.seed}{'_best' if which == 'best' else ''}"
    try:
        tree = read_latest(trial.workdir / "checkpoints" / trial.run / name)
    except FileNotFoundError as error:
        hint = "; --which=last may be there" if which == "best" else ""
        raise UserError(f"workdir: {error}: the trial saved none{hint}") from error
    except ValueError as error:
        other = CHECKPOINTS[which == "best"]
        raise UserError(f"which: {error}; accepted: --which={other}, if it is intact") from error
    return tree["state"]["params"]
