"""TensorBoard events of a trial, always the same points as its lines of metrics.jsonl."""

from __future__ import annotations

import pathlib
import shutil
from typing import Any

import tensorboardX

from experiments.training import pictures as stored


class Writer:
    """Writes the events of one trial. Use as a context manager.

    Args:
      folder: of the trial; what is there is replaced by the events of `records`.
      records: the trial's lines of metrics so far.
      pictures: the folder with the pictures of the trial.
    """

    def __init__(self, folder: pathlib.Path, records: list[dict[str, Any]], pictures: pathlib.Path):
        shutil.rmtree(folder, ignore_errors=True)
        self._pictures = pictures
        self._writer = tensorboardX.SummaryWriter(str(folder))
        for record in records:
            self.write(record)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        self._writer.close()

    def write(self, record: dict[str, Any]) -> None:
        """Adds the points of one line of metrics, and the pictures of its step."""
        for name, value in record.items():
            if name not in ("run", "seed", "step") and value is not None:
                self._writer.add_scalar(name, value, record["step"])
        found = stored.read(self._pictures, record["step"])
        if found is not None:
            self._writer.add_image(", ".join(found.names), found.grid, record["step"], None, "HWC")
        self._writer.flush()


def rewrite(folder: pathlib.Path, records: list[dict[str, Any]], pictures: pathlib.Path) -> None:
    """Replaces the events of a trial by those of its lines of metrics and its pictures."""
    with Writer(folder, records, pictures):
        pass
