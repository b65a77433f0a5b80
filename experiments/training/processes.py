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
