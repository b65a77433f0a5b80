"""What one trial leaves on the disk: checkpoints, lines of metrics, pictures, events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from experiments.training import pictures, tensorboard
from experiments.training.checkpoints import Checkpoints
from experiments.training.workdir import Workdir

Extra = dict[str, Any]  # "best" and "records", beside a state


class TrialFiles(Protocol):
    """Where the training loop reads and writes; `close` follows `begin`."""

    def restore(self, like: Any) -> tuple[Any, Extra] | None:
        """The newest good checkpoint, as in `Checkpoints.restore`."""
        ...

    def begin(self, step: int, records: list[dict[str, Any]]) -> None:
        """Brings all files to this step and these lines of metrics."""
        ...

    def add(self, record: dict[str, Any], columns: Mapping[str, np.ndarray]) -> None:
        """Adds the line of an evaluation, and its pictures; see `pictures.write`."""
        ...

    def save(self, step: int, state: Any, extra: Extra, best: bool = False) -> None:
        """Saves a checkpoint; as the best one too, if it is that."""
        ...

    def kept(self) -> list[int]:
        """Steps of the checkpoints that are there."""
        ...

    def end(self, records: list[dict[str, Any]]) -> None:
        """Leaves the files of a trial that is done."""
        ...

    def close(self) -> None:
        """Lets go of the files; what was saved stays."""
        ...


class OnDisk:
    """The files of one trial in a workdir.

    Args:
      workdir: of the study.
      run: name of the run.
      seed: of the trial.
      identity: see `Checkpoints`.
      notice: see `Checkpoints`.
    """

    def __init__(
        self,
        workdir: Workdir,
        run: str,
        seed: int,
        identity: dict[str, Any],
        notice: Callable[[str], None],
    ):
        self._workdir, self._run, self._seed = workdir, run, seed
        self._seen = workdir.pictures(run, seed)
        self._shown = workdir.tensorboard(run, seed)
        self._last = Checkpoints(workdir.checkpoints(run, seed), identity, notice)
        self._best = Checkpoints(workdir.checkpoints(run, f"{seed}_best"), identity, notice)

    def restore(self, like: Any) -> tuple[Any, Extra] | None:
        return self._last.restore(like)

    def begin(self, step: int, records: list[dict[str, Any]]) -> None:
        self._best.discard_after(step)
        self._workdir.replace_metrics(self._run, self._seed, records)
        self._events = tensorboard.Writer(self._shown, records, self._seen)

    def add(self, record: dict[str, Any], columns: Mapping[str, np.ndarray]) -> None:
        # Before the line of metrics, so that every line has its pictures.
        pictures.write(self._seen, record["step"], columns)
        self._workdir.append_metrics(record)
        self._events.write(record)

    def save(self, step: int, state: Any, extra: Extra, best: bool = False) -> None:
        if best:
            self._best.save(step, state, **extra)
        self._last.save(step, state, **extra)

    def kept(self) -> list[int]:
        return self._last.steps()

    def end(self, records: list[dict[str, Any]]) -> None:
        self.close()
        tensorboard.rewrite(self._shown, records, self._seen)

    def close(self) -> None:
        self._events.close()


class Nowhere:
    """Keeps nothing: for the processes beside the first one, which writes for all."""

    def restore(self, like: Any) -> tuple[Any, Extra] | None:
        return None

    def begin(self, step: int, records: list[dict[str, Any]]) -> None:
        pass

    def add(self, record: dict[str, Any], columns: Mapping[str, np.ndarray]) -> None:
        pass

    def save(self, step: int, state: Any, extra: Extra, best: bool = False) -> None:
        pass

    def kept(self) -> list[int]:
        return []

    def end(self, records: list[dict[str, Any]]) -> None:
        pass

    def close(self) -> None:
        pass
