"""The folder that a run leaves behind; a kill or a full disk leaves no file half-written."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from experiments.system.errors import UserError
from experiments.system.files import finite, write_json, write_text


class Workdir:
    """Paths and files of one run.

    Args:
      path: the folder.
      settings: what the run's result depends on; saved in config.json and compared on resuming.
      resume: whether to go on with what is there.
      record: further values for config.json (versions, device), not compared.

    Attributes:
      path: the folder. existed: whether it held a run before.

    Raises:
      UserError: the folder cannot be written, holds a run and `resume` is False, or holds a run of
        other settings.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: dict[str, Any],
        *,
        resume: bool = False,
        record: dict[str, Any] | None = None,
    ):
        self.path = pathlib.Path(path).expanduser().absolute()
        settings = json.loads(json.dumps(finite(settings)))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            config = self.path / "config.json"
            self.existed = config.exists()
            if self.existed:
                self._check(_read_config(config)["settings"], settings, resume)
            write_json(config, {"settings": settings, **(record or {})})
        except OSError as error:
            raise UserError(
                f"--workdir: cannot write to {self.path}: {error.strerror}; accepted is a folder "
                "that can be written to"
            ) from error

    def _check(self, old: dict[str, Any], new: dict[str, Any], resume: bool) -> None:
        different = _differences(old, new)
        if different:
            raise UserError(
                f"--workdir: {self.path} holds a run of another configuration (it differs in "
                f"{', '.join(different)}); accepted is a new folder, or the run's own settings "
                "with --resume"
            )
        if not resume:
            raise UserError(
                f"--workdir: {self.path} holds a run already; add --resume to go on with it, or "
                "name a new folder"
            )

    @property
    def summary_path(self) -> pathlib.Path:
        return self.path / "summary.json"

    def checkpoints(self, run: str, seed: int) -> pathlib.Path:
        return self.path / "checkpoints" / run / f"seed_{seed}"

    def tensorboard(self, run: str, seed: int) -> pathlib.Path:
        return self.path / "tensorboard" / run / f"seed_{seed}"

    def read_summary(self) -> dict[str, Any] | None:
        """summary.json as the last completed trial left it, or None."""
        if not self.summary_path.exists():
            return None
        return json.loads(self.summary_path.read_text())

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Adds a line to metrics.jsonl and sees it onto the disk."""
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(finite(record), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        if not path.exists():
            return []
        return list(_whole_lines(path.read_text().splitlines()))

    def keep_metrics(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Rewrites metrics.jsonl with the wanted lines alone."""
        kept = [json.dumps(line) + "\n" for line in self.read_metrics() if wanted(line)]
        write_text(self.path / "metrics.jsonl", "".join(kept))


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two nested dicts differ, each place as "path: old there, new asked for"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [x for k in keys for x in _differences(old.get(k), new.get(k), f"{path}.{k}")]
    return [] if old == new else [f"{path[1:]}: {old} there, {new} asked for"]


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
        config["settings"]
        return config
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--workdir: {path} is not the record of a run ({error}); accepted is a new folder"
        ) from error


def _whole_lines(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue
