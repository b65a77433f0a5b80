"""One trial on several devices: every batch is divided among them, the state is on each.

With global batch statistics the step is the program of one device, which XLA divides: batch
normalization takes its statistics over the whole batch, and the numbers are those of one device up
to the order of summation. It costs two all-reduces for each normalized layer.

With local statistics each device normalizes its own part of the batch, as is usual where several
GPUs train one network. Two all-reduces a step remain: the mean of the gradients, and the mean of
the running statistics together with the sums for the metrics. Random streams then differ by device.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from experiments.system.errors import ConfigError
from experiments.training import averaging
from experiments.training.state import TrainState, step_keys
from experiments.training.task import Batch, Task

AXIS = "batch"
STATISTICS = ("global", "local")


@dataclasses.dataclass(frozen=True)
class BatchSharding:
    """How a batch is divided among devices.

    Attributes:
      mesh: of one axis, `AXIS`; those of one process stand side by side.
      statistics: "global" or "local", see above.
    """

    mesh: jax.sharding.Mesh
    statistics: str = "global"

    def __post_init__(self):
        if self.statistics not in STATISTICS:
            raise ConfigError("batch_statistics", self.statistics, ", ".join(STATISTICS))

    @classmethod
    def over(cls, devices: Sequence[jax.Device], statistics: str = "global") -> BatchSharding:
        """A batch over these devices."""
        ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
        return cls(jax.sharding.Mesh(np.array(ordered), (AXIS,)), statistics)

    @property
    def parts(self) -> int:
        """The number of devices."""
        return self.mesh.size

    @property
    def settings(self) -> dict[str, Any]:
        """What the numbers of a trial depend on: nothing, up to rounding, if statistics are global.

        Values for the record of a run.
        """
        if self.statistics == "global":
            return {}
        return {"batch_statistics": self.statistics, "batch_parts": self.parts}

    def check(self, batch_size: int) -> None:
        """Refuses a batch that cannot be divided evenly.

        Raises:
          ConfigError: naming batch_size.
        """
        if batch_size % self.parts:
            raise ConfigError(
                "batch_size", batch_size, f"a multiple of the {self.parts} devices that share it"
            )

    def whole(self, tree: Any) -> Any:
        """The arrays, each whole on every device."""
        sharding = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, sharding)

        def place(leaf):
            if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
                return leaf
            host = np.asarray(leaf)
            return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])

        return jax.tree.map(place, tree)

    def rows(self, length: int) -> slice:
        """The rows of a batch that the devices of this process take."""
        part, process = length // jax.process_count(), jax.process_index()
        return slice(process * part, (process + 1) * part)

    def divided(self, values: np.ndarray, axis: int = 0) -> jax.Array:
        """A batch over the devices, from this process's `rows` of it along `axis`."""
        sharding = NamedSharding(self.mesh, PartitionSpec(*[None] * axis, AXIS))
        return jax.make_array_from_process_local_data(sharding, np.asarray(values))

    def jit(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        """`jax.jit` of a function whose results are whole on every device."""
        whole = NamedSharding(self.mesh, PartitionSpec())
        return jax.jit(function, out_shardings=whole, **options)

    def step(self, task: Task) -> Callable[[TrainState, Batch, jax.Array], TrainState]:
        """One training step of a state that is whole everywhere, on a batch that is divided."""
        if self.statistics == "global":
            return lambda state, batch, seed: one_step(task, state, batch, seed)

        def local(state, batch, seed):
            keys = jax.tree.map(
                lambda key: jax.random.fold_in(key, jax.lax.axis_index(AXIS)),
                step_keys(seed, state.step),
            )
            with averaging.over(AXIS) as averaged:
                new, sums = task.train_step(state.state, batch, keys)
            if not averaged.count:
                raise ConfigError(
                    "batch_statistics", "local", "global, for a task without `gradient_step`"
                )
            new, sums = averaging.gather(new, sums, AXIS)
            return added(state, new, sums)

        whole, parts = PartitionSpec(), PartitionSpec(AXIS)
        return jax.shard_map(local, mesh=self.mesh, in_specs=(whole, parts, whole), out_specs=whole)

    def padded(self, size: int) -> int:
        """The least length >= size that can be divided evenly."""
        return math.ceil(size / self.parts) * self.parts


def one_step(task: Task, state: TrainState, batch: Batch, seed: jax.Array) -> TrainState:
    """One training step and its sums."""
    new, sums = task.train_step(state.state, batch, step_keys(seed, state.step))
    return added(state, new, sums)


def added(state: TrainState, new: Any, sums: Any) -> TrainState:
    """The state after a step: the task's new state, and its sums added."""
    total = jax.tree.map(jnp.add, state.sums, sums)
    return TrainState(step=state.step + 1, state=new, sums=total)
