"""A progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 10.0


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
      >>> for image in progress(images, total=len(images), label="storing", unit="images"):
      ...     store(image)
    """
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, unit=f" {unit}")
        return
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            print(f"{label}: {count} of {total} {unit}", file=sys.stderr, flush=True)
    seconds = time.monotonic() - start
    print(f"{label}: {count} {unit} in {seconds:.1f} s", file=sys.stderr, flush=True)
