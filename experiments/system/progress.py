"""Progress of long work: a bar with ETA and rate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from experiments.system.output import say

Item = TypeVar("Item")
SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows how much of a piece of work is done. Use as a context manager.

    The time until the first `update` is not counted: a program that is compiled in the first step
    would otherwise make the first estimate many times too long.

    Args:
      label: what is being done.
      total: how many items there are.
      done: items done before, by an earlier process.
      unit: what an item is, in the plural.
      to_stderr: prints the lines to stderr instead of stdout.
    """

    def __init__(
        self,
        label: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "examples",
        to_stderr: bool = False,
    ):
        self._label, self._total, self._done, self._unit = label, total, done, unit
        self._to_stderr = to_stderr
        self._started: tuple[float, int] | None = None
        self._last_line = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                initial=done,
                desc=label,
                unit=f" {unit}",
                unit_scale=True,
                smoothing=0.05,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, done: int) -> None:
        """Says that `done` items are done in all."""
        now = time.monotonic()
        if self._started is None:
            self._started = now, done
            if self._bar is not None:
                self._bar.reset(self._total)
                self._bar.update(done)
            self._done = done
            return
        if self._bar is not None:
            self._bar.update(done - self._done)
        self._done = done
        start, first = self._started
        if self._bar is None and now - self._last_line > SECONDS_BETWEEN_LINES and done > first:
            self._last_line = now
            rate = (done - first) / max(now - start, 1e-9)
            left = (self._total - done) / rate
            self.line(
                f"{done:,} of {self._total:,} {self._unit}, {rate:.3g} {self._unit}/s, "
                f"{left:.0f} s left"
            )

    def line(self, text: str) -> None:
        """Prints a line about this work that stays on the screen."""
        message = f"{self._label}: {text}"
        if self._bar is not None:
            self._bar.write(message)
        else:
            say(message, sys.stderr if self._to_stderr else sys.stdout)


def progress(items: Iterable[Item], *, total: int, label: str, unit: str) -> Iterator[Item]:
    """Yields the items and shows on stderr how many have gone by.

    Args:
      items: anything iterable.
      total: how many there are.
      label: what is being done.
      unit: what an item is, in the plural.

    Yields:
      The items.

    Example:
      >>> for image in progress(["a", "b"], total=2, label="storing", unit="images"):
      ...     print(image)
      a
      b
    """
    start = time.monotonic()
    count = 0
    with Progress(label, total, unit=unit, to_stderr=True) as shown:
        for count, item in enumerate(items, start=1):
            yield item
            shown.update(count)
        shown.line(f"{count} {unit} in {time.monotonic() - start:.1f} s")
