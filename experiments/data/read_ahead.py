"""Reading batches ahead of the one that is in use, by threads."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class ReadAhead(Generic[Item, Loaded], Iterator[Loaded]):
    """What `load` makes of each item, in their order; the next ones are loaded meanwhile.

    It is a context manager; leaving it ends the threads. An exception of `load` is raised where its
    item would have come.

    Args:
      load: called in a thread with one item.
      items: may be without end; it is read at most `ahead` items further than needed.
      ahead: how many items are loaded, or being loaded, beside the one that is in use.
      threads: how many are loaded at a time.

    Example:
      >>> with ReadAhead(lambda n: n * n, iter(range(4)), ahead=2, threads=2) as squares:
      ...     list(squares)
      [0, 1, 4, 9]
    """

    def __init__(
        self, load: Callable[[Item], Loaded], items: Iterator[Item], ahead: int, threads: int
    ):
        self._load, self._items, self._ahead = load, items, ahead
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="read-ahead")
        self._pending: collections.deque[Future[Loaded]] = collections.deque()

    def __next__(self) -> Loaded:
        self._fill(self._ahead + 1)
        if not self._pending:
            raise StopIteration
        loaded = self._pending.popleft().result()
        self._fill(self._ahead)
        return loaded

    def __enter__(self) -> ReadAhead[Item, Loaded]:
        return self

    def __exit__(self, *_) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _fill(self, length: int) -> None:
        while len(self._pending) < length:
            try:
                item = next(self._items)
            except StopIteration:
                return
            self._pending.append(self._pool.submit(self._load, item))
