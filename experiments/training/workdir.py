"""The folder that a run leaves behind; a kill or a full disk leaves no file half-written."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

from experiments.system import lock
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import finite, remove_unfinished, write_json, write_text
from experiments.training.checkpoints import differences

_RESULTS = ("summary.json", "metrics.jsonl", "checkpoints")


class Workdir:
    """Paths and files of one study, held by this process alone. Use as a context manager.

    Args:
      path: the folder.
      settings: what the results depend on, saved in config.json and compared on resuming: a dict
        with "seeds" (a list) and "runs" (settings by name) among others. On resuming, further seeds
        and runs may be added.
      check: looks at what is there, and raises if it does not belong to this study; called before
        anything is written.
      resume: whether to go on with what is there.
      record: further values for config.json (versions, device), not compared.
      notice: called with a line of text about damage that was found and repaired.

    Attributes:
      path: the folder.
      existed: whether it held a study before.
      has_config: whether it held config.json before.

    Raises:
      UserError: the folder cannot be written, another process works in it, it holds a study and
        `resume` is False, or it holds a study of other settings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        check: Callable[[Workdir], None] = lambda workdir: None,
        *,
        resume: bool = False,
        record: dict[str, Any] | None = None,
        notice: Callable[[str], None] = print,
    ):
        self._notice = notice
        self._writing = threading.Lock()  # Trials may run side by side.
        self._held = contextlib.ExitStack()
        try:
            self.path = pathlib.Path(path).expanduser().absolute()
            made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(lock.hold(self.path))
        except RuntimeError as error:  # ~nobody: there is no such user
            raise ConfigError("workdir", path, f"a folder that can be written ({error})") from error
        except OSError as error:
            raise ConfigError(
                "workdir", path, f"a folder that can be written to ({error.strerror})"
            ) from error
        except lock.Held as error:
            raise UserError(
                f"workdir: {self.path} is in use by {error}; wait for it to end, or name another "
                "folder"
            ) from error
        try:
            self._open(json.loads(json.dumps(finite(settings))), check, resume, record or {})
        except BaseException:
            if made:  # A refused study leaves nothing.
                shutil.rmtree(self.path, ignore_errors=True)
                with contextlib.suppress(OSError):
                    for folder in made[1:]:
                        folder.rmdir()
            self.close()
            raise

    def __enter__(self) -> Workdir:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes work in the folder."""
        self._held.close()

    @property
    def summary_path(self) -> pathlib.Path:
        return self.path / "summary.json"

    def checkpoints(self, run: str, seed: int | str) -> pathlib.Path:
        return self.path / "checkpoints" / run / f"seed_{seed}"

    def tensorboard(self, run: str, seed: int) -> pathlib.Path:
        return self.path / "tensorboard" / run / f"seed_{seed}"

    def pictures(self, run: str, seed: int) -> pathlib.Path:
        return self.path / "pictures" / run / f"seed_{seed}"

    def read_summary(self, key: str = "seed") -> dict[str, Any] | None:
        """summary.json as the last completed trial left it; None where it is not there or damaged.

        Every row must hold `key` as a number, or the message of an error.

        A damaged file is set aside, and `notice` says so; the trials are then finished again from
        their checkpoints.
        """
        if not self.summary_path.exists():
            return None
        try:
            summary = json.loads(self.summary_path.read_text("utf-8"))
            for run in summary["runs"]:
                run["name"]
                for trial in run["trials"]:
                    trial["seed"] + 0
                    if "error" not in trial:
                        trial[key] + 0
            float(summary["wall_seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            self._set_aside(self.summary_path, "trials are finished again from their checkpoints")
            return None
        return summary

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl and sees it onto the disk."""
        line = json.dumps(finite(record), allow_nan=False) + "\n"
        with self._writing, open(self._metrics, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self, run: str | None = None, seed: int | None = None) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, of all trials or of one; unreadable lines are left out."""
        return [
            line
            for line in self._lines()[0]
            if run is None or (line["run"], line["seed"]) == (run, seed)
        ]

    def replace_metrics(self, run: str, seed: int, records: list[dict[str, Any]]) -> None:
        """Puts `records` in the place of a trial's lines of metrics.jsonl."""
        with self._writing:
            others = [x for x in self.read_metrics() if (x["run"], x["seed"]) != (run, seed)]
            lines = [json.dumps(finite(x), allow_nan=False) + "\n" for x in [*others, *records]]
            write_text(self._metrics, "".join(lines))

    @property
    def _metrics(self) -> pathlib.Path:
        return self.path / "metrics.jsonl"

    def _open(
        self,
        settings: dict[str, Any],
        check: Callable[[Workdir], None],
        resume: bool,
        record: dict[str, Any],
    ) -> None:
        config = self.path / "config.json"
        begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.has_config = config.exists()
        self.existed = self.has_config or any((self.path / x).exists() for x in _RESULTS)
        if config.exists():
            old = _read_config(config)
            self._check(old["settings"], settings, resume)
            # Before "begun" was recorded there was only the date of the last start.
            environment = old.get("environment")
            last = environment.get("date") if isinstance(environment, dict) else None
            begun = old.get("begun") or last or begun
        elif self.existed and not resume:
            raise UserError(
                f"workdir: {self.path} holds results but no config.json; accepted: a new folder, "
                "or the settings of those results with --resume"
            )
        elif self.existed:
            self._notice(f"{config} is missing; the checkpoints say which settings they belong to")
        if self.existed:
            self._repair()
        check(self)
        try:
            write_json(config, {"settings": settings, "begun": begun, **record})
        except OSError as error:
            raise ConfigError(
                "workdir", self.path, f"a folder that can be written to ({error.strerror})"
            ) from error

    def _check(self, old: dict[str, Any], new: dict[str, Any], resume: bool) -> None:
        different = _differences(old, new)
        if different:
            raise UserError(
                f"workdir: {self.path} holds a run of another configuration (it differs in "
                f"{', '.join(different)}); accepted: a new folder, or the run's own settings with "
                "--resume"
            )
        if not resume:
            raise UserError(
                f"workdir: {self.path} holds a run already; add --resume to go on with it, or "
                "name a new folder"
            )

    def _repair(self) -> None:
        """Finds damage that can be told at once, before any work is done."""
        checkpoints = self.path / "checkpoints"
        for path in (checkpoints, *checkpoints.glob("*"), *checkpoints.glob("*/seed_*")):
            if path.exists() and not path.is_dir():
                raise UserError(
                    f"workdir: {path} is not a folder; remove it, and the trials that have not "
                    "ended begin again"
                )
        for kind in ("tensorboard", "pictures"):
            folder = self.path / kind
            for path in (folder, *folder.glob("*"), *folder.glob("*/seed_*")):
                if path.exists() and not path.is_dir():
                    self._set_aside(path, "what it held is written again")
        remove_unfinished(self.path)
        if self._metrics.is_dir():
            self._set_aside(self._metrics, "its lines are taken from the checkpoints")
        lines, unreadable = self._lines()
        if unreadable:
            write_text(self._metrics, "".join(json.dumps(line) + "\n" for line in lines))
            self._notice(
                f"{self._metrics}: {unreadable} unreadable lines removed; lines that are missing "
                "are taken from the checkpoints"
            )

    def _lines(self) -> tuple[list[dict[str, Any]], int]:
        """The readable lines of metrics.jsonl, and the number of the others."""
        try:
            text = self._metrics.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return [], 0
        return parse_metrics(text)

    def _set_aside(self, path: pathlib.Path, consequence: str) -> None:
        aside = path.with_name(f"{path.name}.damaged")
        number = 0
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged.{number}")
        path.rename(aside)
        self._notice(f"{path} is damaged; moved to {aside.name}, {consequence}")


def parse_metrics(text: str) -> tuple[list[dict[str, Any]], int]:
    """The lines of metrics.jsonl that can be used, and the number of the others."""
    lines, unreadable = [], 0
    for line in text.splitlines():
        try:
            value = json.loads(line)
            str(value["run"]), value["seed"] + 0, value["step"] + 0, value["epoch"] + 0
            if any(isinstance(x, str | list | dict) for k, x in value.items() if k != "run"):
                raise TypeError
            lines.append(value)
        except (ValueError, KeyError, TypeError):
            unreadable += 1
    return lines, unreadable


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Where the settings differ, apart from seeds and runs that were added."""
    found = differences(
        {k: v for k, v in old.items() if k not in ("seeds", "runs")},
        {k: v for k, v in new.items() if k not in ("seeds", "runs")},
    )
    if missing := sorted(set(old["seeds"]) - set(new["seeds"])):
        found.append(f"seeds: {', '.join(map(str, missing))} there, not asked for")
    if missing := [name for name in old["runs"] if name not in new["runs"]]:
        found.append(f"runs: {', '.join(missing)} there, not asked for")
    both = [name for name in old["runs"] if name in new["runs"]]
    return found + differences(
        {name: old["runs"][name] for name in both}, {name: new["runs"][name] for name in both}
    )


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    """config.json, with the settings of a study in it."""
    try:
        config = json.loads(path.read_text("utf-8"))
        list(config["settings"]["seeds"]), dict(config["settings"]["runs"])
        return config
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"workdir: {path} is not the record of a run ({type(error).__name__}: {error}); "
            "accepted: a new folder, or remove the file and use --resume with the run's own "
            "settings"
        ) from error
