"""Plans of studies, experiments/studies/NAME.toml: what is asked, fixed before the first trial."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pathlib
import shlex
import subprocess
import tomllib
from typing import Any

from experiments.reports.studies import Part
from experiments.system.errors import ConfigError, UserError

SHIFT = "shift"


@dataclasses.dataclass(frozen=True)
class Contrast:
    """Two runs that are compared, or the model that is fitted to all of them.

    Attributes:
      run: the name of a run.
      baseline: the name of the run that it is compared with.
      why: what the contrast is for.
      model: `SHIFT`, see `planned.shift`, in place of two runs.
    """

    run: str = ""
    baseline: str = "baseline"
    why: str = ""
    model: str = ""

    @property
    def name(self) -> str:
        return self.model or f"{self.run} - {self.baseline}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """A plan, as its file has it.

    Attributes:
      path: of the file.
      title, question, command, machine: in words; the command is run with flags for its parts.
      primary: the contrast that the study is for.
      secondary: the others, which are exploratory.
      n: seeds.
      endpoint: a key of a trial in summary.json, such as "test_accuracy" (at the last evaluation).
      margin_percent_of_error: a difference that is smaller does not matter, in percent of the
        baseline's error.
    """

    path: pathlib.Path
    title: str
    question: str
    command: str
    machine: str
    primary: Contrast
    secondary: tuple[Contrast, ...]
    n: int
    endpoint: str
    margin_percent_of_error: float

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def module(self) -> str:
        """The module of the command."""
        return self._words[2]

    @property
    def arguments(self) -> list[str]:
        """The flags of the command."""
        return self._words[3:]

    @property
    def _words(self) -> list[str]:
        return shlex.split(self.command)


def read(path: pathlib.Path) -> Plan:
    """Reads a plan.

    Raises:
      ConfigError: there is none, or a field is missing, unknown or not of its kind.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.toml")))
        raise ConfigError("study", path.stem, f"one of {others}") from error
    except (OSError, ValueError) as error:
        raise ConfigError("study", f"{path} ({error})", "a plan in TOML") from error
    primary, secondary = found.pop("primary", None), found.pop("secondary", [])
    if not isinstance(primary, dict) or not isinstance(secondary, list):
        raise ConfigError("study", path, "a plan with [primary], and [[secondary]] where there are")
    numbers = {
        name: primary.pop(name, None) for name in ("n", "endpoint", "margin_percent_of_error")
    }
    fields = {**found, **numbers}
    kinds = {
        **dict.fromkeys(("title", "question", "command", "machine", "endpoint"), str),
        "n": int,
        "margin_percent_of_error": (int, float),
    }
    for name in {**kinds, **fields}:
        value = fields.get(name)
        if name not in kinds or not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ConfigError(
                f"study: {path}: {name}", repr(value), "a plan with " + ", ".join(kinds)
            )
    for name in ("n", "margin_percent_of_error"):
        if fields[name] <= 0:
            raise ConfigError(f"study: {path}: {name}", fields[name], "a number above 0")
    plan = Plan(
        path, primary=_contrast(path, primary),
        secondary=tuple(_contrast(path, other) for other in secondary), **fields,
    )  # fmt: skip
    words = shlex.split(plan.command)
    if words[:2] != ["python", "-m"] or len(words) < 3:
        raise ConfigError(f"study: {path}: command", plan.command, "python -m MODULE --flag=value")
    return plan


def committed(path: pathlib.Path) -> datetime.datetime:
    """When a plan was last changed, by its commit.

    Raises:
      UserError: it is in no commit as it is.
    """
    git = ["git", "-C", str(path.parent)]
    try:
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", path.name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        date = subprocess.run(
            [*git, "log", "-1", "--format=%cI", "--", path.name],
            capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(
            f"study: when {path} was committed cannot be told ({error}); accepted: a plan in a git "
            "checkout"
        ) from error
    if changed or not date:
        raise UserError(
            f"study: {path} is not committed as it is; accepted: a plan that was committed before "
            "its first trial"
        )
    return datetime.datetime.fromisoformat(date)


def begun(part: Part) -> datetime.datetime | None:
    """When the first trial of a workdir began, as far as it tells; None where it does not.

    Raises:
      UserError: a date in it is damaged.

    config.json has it since 2026-12; before, the date of its last start. The names of TensorBoard's
    files have the time at which each trial was started.
    """
    environment = part.record.get("environment")
    dates = [part.record.get("begun")]
    dates += [environment.get("date")] if isinstance(environment, dict) else []
    try:
        found = [datetime.datetime.fromisoformat(date) for date in dates if date]
    except (TypeError, ValueError) as error:
        raise UserError(
            f"workdir: {part.path}: config.json has a date that is none ({error}); accepted: the "
            "workdir of a training command"
        ) from error
    for file in pathlib.Path(part.path).expanduser().glob("tensorboard/*/seed_*/events*"):
        stamp = file.name.removeprefix("events.out.tfevents.").partition(".")[0]
        if stamp.isdecimal():
            found.append(datetime.datetime.fromtimestamp(int(stamp), datetime.UTC))
    return min(found, default=None)


def check_older(plan: Plan, parts: list[Part]) -> dict[str, str]:
    """The dates of the plan's last change and of the first trial.

    Raises:
      UserError: the plan is younger than the first trial of a part, or a part has no date.
    """
    fixed = committed(plan.path)
    firsts = []
    for part in parts:
        first = begun(part)
        if first is None:
            raise UserError(
                f"workdir: {part.path} does not tell when it was begun; accepted: the workdir of a "
                "training command"
            )
        if first < fixed:
            raise UserError(
                f"study: {plan.path} was last changed by the commit of {fixed.isoformat()}, and "
                f"{part.path} was begun at {first.isoformat()}; accepted: results of trials that "
                "began after the plan was committed"
            )
        firsts.append(first)
    return {"plan": fixed.isoformat(), "first_trial": min(firsts).isoformat()}


def _contrast(path: pathlib.Path, found: Any) -> Contrast:
    names = {field.name for field in dataclasses.fields(Contrast)}
    if not isinstance(found, dict) or not all(
        name in names and isinstance(value, str) for name, value in found.items()
    ):
        raise ConfigError(f"study: {path}", found, f"contrasts with {', '.join(sorted(names))}")
    contrast = Contrast(**found)
    if contrast.model not in ("", SHIFT) or bool(contrast.run) == bool(contrast.model):
        raise ConfigError(f"study: {path}", found, f'contrasts with run, or with model = "{SHIFT}"')
    return contrast


def as_record(plan: Plan) -> dict[str, Any]:
    """The plan as values for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(plan) | {"path": plan.path.name}))
