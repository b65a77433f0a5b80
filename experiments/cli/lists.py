"""Checks of flags that the commands without a training configuration have: lists and numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from experiments.system.errors import ConfigError


def names(flag: str, given: Sequence[str], accepted: Iterable[str]) -> list[str]:
    """The names of a list flag: one or more, each accepted and given once.

    Raises:
      ConfigError: naming the flag.

    Example:
      >>> names("sizes", ["small"], ("small", "large"))
      ['small']
    """
    accepted = list(accepted)
    if not given:
        raise ConfigError(flag, "none", f"one or more of {', '.join(accepted)}")
    for name in given:
        if name not in accepted:
            raise ConfigError(flag, repr(name), ", ".join(accepted))
        if list(given).count(name) > 1:
            raise ConfigError(flag, f"{name} twice", "each name once")
    return list(given)


def integers(flag: str, given: Sequence[str], low: int, high: int) -> list[int]:
    """The integers of a list flag, each from `low` to `high`.

    Raises:
      ConfigError: naming the flag.

    Example:
      >>> integers("batch_sizes", ["128", "8"], 1, 1000)
      [128, 8]
    """
    for text in given:
        # int() accepts more: other alphabets, underscores, spaces.
        if not (text.isascii() and text.isdecimal() and low <= int(text[:20]) <= high):
            raise ConfigError(flag, repr(text), f"integers from {low} to {high}")
    return [int(text) for text in given]


def numbers(flag: str, given: Sequence[str], low: float, high: float) -> list[float]:
    """The numbers of a list flag: one or more, each from `low` to `high`.

    Raises:
      ConfigError: naming the flag.

    Example:
      >>> numbers("scales", ["0.05", "1"], 1e-6, 1e6)
      [0.05, 1.0]
    """
    accepted = f"numbers from {low:g} to {high:g}"
    if not given:
        raise ConfigError(flag, "none", f"one or more {accepted}")
    found = []
    for text in given:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise ConfigError(flag, repr(text), accepted)
        found.append(value)
    return found


def within(flag: str, value: float, low: float, high: float) -> None:
    """Raises a ConfigError unless `low` <= value <= `high`; NaN is refused."""
    if not low <= value <= high:
        kind = "an integer" if isinstance(value, int) else "a number"
        raise ConfigError(flag, value, f"{kind} from {low:g} to {high:g}")
