"""Progress of a trial: a bar with ETA and rate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows how far a trial is. Use as a context manager.

    Args:
      label: what is trained.
      steps: steps in all.
      done: steps done before, by an earlier process.
      batch_size: examples per step, for the rate.
    """

    def __init__(self, label: str, steps: int, done: int, batch_size: int):
        self._label, self._steps, self._done, self._batch = label, steps, done, batch_size
        self._start, self._start_step = time.monotonic(), done
        self._last_line = self._start
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(
                total=steps * batch_size,
                initial=done * batch_size,
                desc=label,
                unit="img",
                unit_scale=True,
                smoothing=0.05,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, step: int) -> None:
        """Says that so many steps are done."""
        if self._bar is not None:
            self._bar.update((step - self._done) * self._batch)
        self._done = step
        now = time.monotonic()
        if self._bar is None and now - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = now
            rate = (step - self._start_step) / (now - self._start)
            left = (self._steps - step) / max(rate, 1e-9)
            self.line(
                f"step {step}/{self._steps}, {rate * self._batch:.0f} examples/s, {left:.0f} s left"
            )

    def line(self, text: str) -> None:
        """A line about this trial, kept on the screen."""
        message = f"{self._label}: {text}"
        if self._bar is not None:
            self._bar.write(message)
        else:
            print(message, flush=True)
