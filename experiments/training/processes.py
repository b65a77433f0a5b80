"""Several processes that train one trial together, usually one on each host.

Every process runs the same program on its part of the data. The first one reads and writes the
workdir; what it read is sent to the others, so they need not see its disk.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np

from experiments.system.errors import ConfigError, UserError
from experiments.training.checkpoints import differences


def start(
    coordinator: str | None = None, count: int | None = None, number: int | None = None
) -> None:
    """Joins the processes; called before anything is computed.

    Args:
      coordinator: HOST:PORT of the first process. By default JAX finds it, and the rest, from what
        Slurm, Open MPI or Kubernetes say.
      count: how many processes there are.
      number: which of them this is, from 0 on.

    Raises:
      ConfigError: some are given and others not, or the processes do not find each other.
    """
    given = [x is not None for x in (coordinator, count, number)]
    if any(given) and not all(given):
        raise ConfigError(
            "distributed",
            "a part of --coordinator, --num_processes, --process_id",
            "all three, or none where Slurm, Open MPI or Kubernetes start the processes",
        )
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not (host and port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
            raise ConfigError("coordinator", coordinator, "HOST:PORT, such as localhost:1234")
    try:
        jax.distributed.initialize(coordinator, count, number)
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            "distributed",
            f"no connection ({reason})",
            "processes started by Slurm, Open MPI or Kubernetes, or --coordinator=HOST:PORT, "
            "--num_processes and --process_id",
        ) from error


def several() -> bool:
    """Whether this process is one of several."""
    return jax.process_count() > 1


def is_first() -> bool:
    """Whether this process reads and writes."""
    return jax.process_index() == 0


def agreed(make: Callable[[], Any]) -> Any:
    """What the first process makes, in every process.

    Args:
      make: returns values for JSON; only the first process calls it.

    Raises:
      UserError: `make` raised it, in the first process.
    """
    if not several():
        return make()
    said: dict[str, Any] = {}
    raised: UserError | None = None
    if is_first():
        try:
            said = {"value": make()}
        except UserError as error:
            said, raised = {"error": str(error)}, error
    said = json.loads(_sent(json.dumps(said).encode()))
    if raised is not None:
        raise raised
    if "error" in said:
        raise UserError(said["error"])
    return said["value"]


def require_equal(settings: Any) -> None:
    """Refuses processes that were started with different settings; otherwise they would mix.

    Args:
      settings: values for JSON.

    Raises:
      UserError: in every process, if any of them differs from the first.
    """
    if not several():
        return
    from jax.experimental import multihost_utils

    own = json.loads(json.dumps(settings, default=str))
    changed = differences(json.loads(_sent(json.dumps(own).encode())), own)
    counts = multihost_utils.process_allgather(np.int32(len(changed)))
    if counts.any():
        which = ", ".join(str(number) for number in np.flatnonzero(counts))
        here = f": {', '.join(changed)}" if changed else ""
        raise UserError(
            f"distributed: process {which} has other settings or data than process 0{here}; "
            "accepted: the same command and the same data in every process"
        )


def was_lost(error: BaseException) -> bool:
    """Whether an error says that another process has ended."""
    return isinstance(error, jax.errors.JaxRuntimeError) and several()


def from_first(
    restore: Callable[[], tuple[Any, dict[str, Any]] | None], like: Any
) -> tuple[Any, dict[str, Any]] | None:
    """The checkpoint that the first process restored, in every process.

    Args:
      restore: returns (state, extra values for JSON), or None where there is no checkpoint.
      like: a state of the same structure.

    Raises:
      UserError: `restore` raised it, in the first process.
    """
    if not several():
        return restore()
    found: list[tuple[Any, dict[str, Any]] | None] = [None]

    def read() -> dict[str, Any] | None:
        found[0] = restore()
        return None if found[0] is None else {"extra": found[0][1]}

    said = agreed(read)
    if said is None:
        return None
    state = b"" if found[0] is None else flax.serialization.to_bytes(jax.device_get(found[0][0]))
    return flax.serialization.from_bytes(like, _sent(state)), said["extra"]


def _sent(data: bytes) -> bytes:
    """The bytes of the first process."""
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.zeros(length, np.uint8)
    if is_first():
        padded[:] = np.frombuffer(data, np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()
