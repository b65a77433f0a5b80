"""Which devices a study uses, and trials that run side by side, each on a device of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import jax

from experiments.system import interrupt
from experiments.system.errors import ConfigError

Job = TypeVar("Job")


def choose(text: str) -> list[jax.Device]:
    """Devices of this machine.

    Args:
      text: "all" or a number.

    Raises:
      ConfigError: there are not so many.
    """
    found = jax.local_devices()
    accepted = f"all, or 1 to {len(found)} (this machine has {len(found)})"
    if text == "all":
        return found
    if not (text.isdecimal() and 1 <= int(text) <= len(found)):
        raise ConfigError("devices", text, accepted)
    return found[: int(text)]


def spread(
    jobs: Sequence[Job], work: Callable[[Job], Any], devices: Sequence[jax.Device] | None = None
) -> Iterator[tuple[Job, Any]]:
    """Does jobs side by side, one at a time on each device, from the first to the last.

    Args:
      jobs: what is to be done.
      work: does one job, on JAX's default device; called in a thread for each device.
      devices: by default the jobs are done in this thread, on JAX's default device.

    Yields:
      (job, what `work` returned), in the order in which they end.

    Raises:
      Exception: the first that `work` raised. The other threads end at their next step.
    """
    if devices is None:
        for job in jobs:
            yield job, work(job)
        return
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[Any, Any, BaseException | None]] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)

    def serve(device: jax.Device) -> None:
        with jax.default_device(device):
            while True:
                try:
                    job = waiting.get_nowait()
                    interrupt.raise_if_pending()
                    done.put((job, work(job), None))
                except (queue.Empty, interrupt.Stopped):
                    return
                except BaseException as error:
                    done.put((None, None, error))
                    return

    threads = [
        threading.Thread(target=serve, args=(device,), name=f"trials on {device}")
        for device in devices
    ]
    try:
        with interrupt.threads():
            for thread in threads:
                thread.start()
            for _ in jobs:
                job, result, error = done.get()
                if error is not None:
                    raise error
                yield job, result
    finally:
        for thread in threads:
            thread.join()
