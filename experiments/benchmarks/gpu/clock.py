"""The time that is left, for the suite and for a part of it."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """A budget of seconds that runs from now on.

    Args:
      seconds: the budget.
      now: tells the time in seconds.

    Example:
      >>> clock = Clock(100, now=lambda: 5.0)
      >>> clock.left, clock.part(30).left, clock.part(200).left, clock.fits(99), clock.fits(101)
      (100.0, 30.0, 100.0, True, False)
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic):
        self._now = now
        self._end = now() + seconds

    @property
    def left(self) -> float:
        """Seconds that are left; negative after the end."""
        return self._end - self._now()

    def part(self, seconds: float) -> Clock:
        """A clock for a part: `seconds`, or what is left here if that is less."""
        return Clock(min(seconds, self.left), self._now)

    def fits(self, seconds: float = 0.0) -> bool:
        """Whether a measurement that takes about this long can begin."""
        return self.left > seconds
