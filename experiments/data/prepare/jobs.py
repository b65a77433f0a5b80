"""Many jobs in parallel, with a journal: what the preparation of large datasets is made of.

Each job reads a file of the source and writes to its own place in an array on the disk. A journal
has a line for each job that is done, so a run that was killed goes on where it stopped. Memory
holds a few jobs at a time.
"""

from __future__ import annotations

import collections
import concurrent.futures.process
import contextlib
import dataclasses
import math
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np

from experiments.system import processors
from experiments.system.errors import ConfigError

MAX_SKIPPED = 0.02  # share of the listed files
MAX_WORKERS = 61  # Windows waits for no more processes at once
_JOBS_AHEAD = 4  # per worker: enough to keep it busy, few enough to keep memory bounded


@dataclasses.dataclass(frozen=True)
class Report:
    """What was prepared.

    Args:
      folder: the folder of the dataset.
      skipped: the files that could not be used, each with the reason.
    """

    folder: pathlib.Path
    skipped: dict[str, str]


def checked(workers: int | None, max_skipped: float) -> int:
    """The number of workers, by default one for each CPU that this process may use.

    Raises:
      ConfigError: the number or the share is out of its range.

    Example:
      >>> checked(3, max_skipped=0.5)
      3
    """
    workers = min(processors.usable(), MAX_WORKERS) if workers is None else workers
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError("workers", workers, f"1 to {MAX_WORKERS}")
    if not 0 <= max_skipped <= 1:
        raise ConfigError("max_skipped", max_skipped, "a share from 0 to 1")
    return workers


def in_order(run: Callable, function: Callable, jobs: list, workers: int) -> Iterator:
    """Yields the results of the jobs in their order; a bounded number of them is under way."""
    ahead = collections.deque()
    for job in jobs:
        ahead.append(run(function, job))
        if workers == 1 or len(ahead) > _JOBS_AHEAD * workers:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


@contextlib.contextmanager
def pool(workers: int) -> Iterator[Callable]:
    """Yields a function that starts function(job) and returns its future.

    A single worker is this process.
    """
    if workers == 1:
        yield _run_here
        return
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ConfigError(
            "workers",
            f"{workers}, and one was ended from outside, perhaps because memory was short",
            "fewer; the work done is kept",
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _run_here(function: Callable, job) -> concurrent.futures.Future:
    future = concurrent.futures.Future()
    future.set_result(function(job))
    return future


def _end_with_parent() -> None:
    """Ends this worker together with the process that started it.

    That process alone reacts to Ctrl-C. A worker whose parent is killed would otherwise wait for
    its next job for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def array_file(path: pathlib.Path, shape: tuple[int, ...], journal: pathlib.Path) -> int:
    """Makes a .npy file of bytes, unless it is there; returns where its data begins.

    A new file holds zeros, so a journal that says that rows were written is removed first.
    """
    size = math.prod(shape)
    if not path.exists() or path.stat().st_size < size:
        journal.unlink(missing_ok=True)
        with open(path, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + size)
    return path.stat().st_size - size


def complete_lines(path: pathlib.Path) -> list[str]:
    """The lines of a journal; removes a last line that was not written to its end."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return whole.decode("utf-8", errors="replace").splitlines()
