"""Runs or resumes a planned study, or imports its finished workdirs, and writes what it found.

    python -m experiments.study optflow_fresh_seeds
    python -m experiments.study optflow_fresh_seeds WORKDIR...

The plan is experiments/studies/NAME.toml: question, command, primary contrast, seeds, endpoint,
margin. It must have been committed before the first trial; results that are older are refused.
Without workdirs the plan's command runs in --parts processes, each with a core and a part of the
seeds, in --workdir; the same command goes on after a kill. Written are NAME.json and NAME.md
(primary contrast first, the others Holm-adjusted as exploratory, equivalence beside each), and
studies.png: the contrasts of all studies in the folder, in percent of the error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from experiments.cli import main as command
from experiments.figures.files import save
from experiments.figures.forest import forest
from experiments.reports import planned, plans, studies
from experiments.reports.plans import Plan
from experiments.reports.studies import Part
from experiments.system.errors import ConfigError, NonFiniteError, UserError
from experiments.system.files import write_json, write_text
from experiments.training.settings import at_least

SEVERAL = "study"  # the first name on the command line; the others are workdirs
HERE = pathlib.Path(__file__).resolve().parent
# Flags that change nothing about a trial.
FREE = ("workdir", "resume", "trial_range", "data_dir", "confirm", "checkpoint_every", "devices")


def define(values: flags.FlagValues) -> None:
    where: dict[str, Any] = {"flag_values": values, "module_name": "study"}
    flags.DEFINE_string("studies", str(HERE / "studies"), "Folder of the plans.", **where)
    flags.DEFINE_string("out", str(HERE / "results"), "Folder for the results.", **where)
    flags.DEFINE_string(
        "workdir", None, "Folder for the parts' workdirs. Default: runs/study-NAME.", **where
    )
    flags.DEFINE_integer(
        "parts", None, "Processes that train, each on a core. Default: as many as cores.", **where
    )
    flags.DEFINE_string(
        "data_dir", None, "Folder of the prepared datasets. Default: the command's.", **where
    )


def main(values: flags.FlagValues, name: str, *names: str) -> dict[str, Any]:
    folder = pathlib.Path(values.studies).expanduser()
    if not folder.is_dir():
        raise ConfigError("studies", values.studies, "a folder with NAME.toml")
    plan = plans.read(folder / f"{name}.toml")
    trials = parsed(plan, plan.arguments)["trials"]
    if trials < plan.n:
        raise ConfigError(f"study: {plan.path}: n", plan.n, f"at most {trials}, the --trials")
    if values.parts is not None:
        at_least("parts", values.parts, 1)
    out = command.out_folder(values)
    workdirs, failed = list(names), ""
    if not workdirs:
        if values.workdir is None:
            values["workdir"].value = f"runs/study-{plan.name}"
        place = command.out_folder(values, "workdir").absolute()
        plans.committed(plan.path)  # before anything is trained
        workdirs, failed = train(plan, trials, place, values.parts, values.data_dir)
    parts = [studies.read(path) for path in dict.fromkeys(workdirs)]
    for part in parts:
        check_command(plan, part)
    found = planned.result(plan, parts, plans.check_older(plan, parts))
    write_json(out / f"{plan.name}.json", found)
    text = planned.table(found)
    write_text(out / f"{plan.name}.md", text)
    save(forest(results(out)), out / "studies.png")
    print(text)
    print(f"in {out}: {plan.name}.json  {plan.name}.md  studies.png  studies.pdf")
    if failed:
        raise NonFiniteError(f"a part failed ({failed})")
    return found


def train(
    plan: Plan, trials: int, folder: pathlib.Path, count: int | None, data_dir: str | None
) -> tuple[list[str], str]:
    """Runs the parts side by side.

    Args:
      plan: the study's.
      trials: of its command.
      folder: where the parts' workdirs are.
      count: of the parts; as many as cores where it is None.
      data_dir: of the command, or None.

    Returns:
      The workdirs, and what failed (trials that diverged) in words.

    Raises:
      NonFiniteError: a part failed before a trial ended; the others have ended.
      UserError: the folder holds other parts.
    """
    cores: Sequence[int] = range(os.cpu_count() or 1)
    pinned = hasattr(os, "sched_setaffinity")
    if pinned:
        cores = sorted(os.sched_getaffinity(0))
    count = min(len(cores) if count is None else count, trials)
    ends = [trials * part // count for part in range(count + 1)]
    paths = [folder / f"trials_{first}_{stop}" for first, stop in zip(ends, ends[1:], strict=False)]
    before = [path for path in sorted(folder.glob("trials_*/")) if path not in paths]
    if before:
        raise UserError(
            f"workdir: {folder} holds other parts ({', '.join(path.name for path in before)}); "
            "accepted: the same --parts as before, or a new folder"
        )
    running = []
    try:
        for part, path in enumerate(paths):
            path.mkdir(parents=True, exist_ok=True)
            if pinned:  # A process inherits it.
                os.sched_setaffinity(0, {cores[part % len(cores)]})
            log = open(folder / f"{path.name}.log", "a", encoding="utf-8")
            with log:
                running.append(
                    subprocess.Popen(
                        [
                            sys.executable, "-m", plan.module, *plan.arguments, "--confirm=0",
                            f"--trial_range={ends[part]}:{ends[part + 1]}", f"--workdir={path}",
                            "--resume",
                            *([f"--data_dir={data_dir}"] if data_dir else []),
                        ],
                        stdout=log, stderr=subprocess.STDOUT,
                    )
                )  # fmt: skip
            print(f"trials {ends[part]} to {ends[part + 1] - 1}: {path}, told in {log.name}")
        ended = zip(paths, [process.wait() for process in running], strict=True)
        failed = [folder / f"{path.name}.log" for path, code in ended if code != 0]
    finally:
        if pinned:
            os.sched_setaffinity(0, set(cores))
        for process in running:
            if process.poll() is None:
                process.terminate()
    said = "; ".join(f"{log.stem}: {_last_line(log)}" for log in failed)
    if not all((path / "summary.json").exists() for path in paths):
        raise NonFiniteError(f"a part failed ({said}); the same command goes on with it")
    return [str(path) for path in paths], said


def check_command(plan: Plan, part: Part) -> None:
    """Refuses a workdir of another command than the plan's.

    Raises:
      UserError: naming the flags that differ.
    """
    ran = part.settings["experiment"]
    if ran != _experiment(plan).name:
        raise UserError(f"workdir: {part.path} is of {ran}; accepted: of {plan.module}")
    asked = parsed(plan, plan.arguments)
    got = parsed(plan, (part.record.get("command") or ["command"])[1:])
    different = [
        f"--{name}={got[name]}, not {asked[name]}"
        for name in asked
        if name not in FREE and asked[name] != got[name]
    ]
    if different:
        raise UserError(
            f"workdir: {part.path} was made by another command than the plan's "
            f"({'; '.join(different)}); accepted: the command of {plan.path}"
        )


def parsed(plan: Plan, arguments: Sequence[str]) -> dict[str, Any]:
    """The values of the flags of the plan's command with these arguments."""
    values = flags.FlagValues()
    _experiment(plan).define(values)
    command.parse_flags(values, ["command", *arguments])
    return {name: values[name].value for name in values}


def results(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The results of all studies in a folder."""
    found = []
    for path in sorted(folder.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            value = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(value, dict) and "study" in value and "contrasts" in value:
                found.append(value)
    return found


def _experiment(plan: Plan):
    try:
        return importlib.import_module(plan.module).EXPERIMENT
    except (ImportError, AttributeError) as error:
        accepted = "python -m with a training command"
        raise ConfigError(f"study: {plan.path}: command", plan.command, accepted) from error


def _last_line(path: pathlib.Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "nothing was said"


if __name__ == "__main__":
    command.run(main, define, several=SEVERAL)
