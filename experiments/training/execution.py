"""How steps are run on this machine. The only place where the backend makes a difference.

Measured for ResNet-56, batch 128, on 2 CPU cores: a step is fastest as a jitted call of its own;
inside `lax.scan` the same step takes 18 times as long, and vmapped over two seeds 3 times as long
as two calls. So on a CPU each step is one call and trials run one after another.

On an accelerator the cost is in the dispatch and in the copies from the host, so the examples stay
on the device as uint8 and many steps run in one `lax.scan`; examples that do not fit there are read
ahead by threads and copied while the device works. (vmap over seeds would turn the
convolutions into grouped ones, which are often slow; until that is measured on a GPU, trials run
one after another there too.)
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.data.read_ahead import ReadAhead
from experiments.training.sharding import BatchSharding, one_step
from experiments.training.state import TrainState, evaluation_keys, initial_state
from experiments.training.task import Batch, Rows, Task

# The bytes of one evaluation batch: images are small and many, one clip may be megabytes.
EVALUATION_BYTES = 16 << 20
READING_THREADS = 2  # that read ahead
PICTURES = 8  # test examples that a task's pictures show


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run steps.

    Attributes:
      steps_per_dispatch: steps in one call of the device.
      device_resident: whether the examples are copied to the device once, as uint8.
      evaluation_batch: the most examples of one evaluation batch. Large ones suit an accelerator,
        where a launch costs time, and small ones the caches of a CPU.
      read_ahead: batches that threads read and copy to the device while it works, where the
        examples do not stay there.
    """

    steps_per_dispatch: int
    device_resident: bool
    evaluation_batch: int = 250
    read_ahead: int = 0

    def dispatch(self, between: int) -> int:
        """Steps of one dispatch, where evaluations are `between` steps apart.

        A number that divides them, if that is no less than half of what it may be, because each
        number of steps is a program of its own to compile.

        Example:
          >>> plan = Plan(steps_per_dispatch=50, device_resident=True)
          >>> plan.dispatch(390), plan.dispatch(391), plan.dispatch(7)
          (39, 50, 7)
        """
        most = min(self.steps_per_dispatch, between)
        divisor = max(n for n in range(1, most + 1) if between % n == 0)
        return divisor if 2 * divisor >= most else most


def plan_for(dataset_bytes: int, backend: str | None = None) -> Plan:
    """The plan for this backend and a dataset of this size."""
    if (backend or jax.default_backend()) == "cpu":
        return Plan(steps_per_dispatch=1, device_resident=False)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 8 << 30)
    if dataset_bytes > limit // 3:
        # The steps are calls of their own, but the host waits for them after the last one only.
        return Plan(10, device_resident=False, evaluation_batch=2500, read_ahead=4)
    return Plan(50, device_resident=True, evaluation_batch=2500)


def batches(seed: int, examples: int, batch_size: int, first_step: int) -> Iterator[np.ndarray]:
    """Indices of the examples of each step from `first_step` on, without end.

    Every epoch is a new permutation, a function of the seed and the epoch alone; the incomplete
    batch at its end is dropped.
    """
    per_epoch = examples // batch_size
    step = first_step
    while True:
        epoch, offset = divmod(step, per_epoch)
        order = np.random.default_rng([seed, epoch]).permutation(examples).astype(np.int32)
        for start in range(offset, per_epoch):
            yield order[start * batch_size : (start + 1) * batch_size]
            step += 1


class Executor:
    """Runs steps and evaluations of one task; compiled once for all trials.

    Args:
      task: what is trained.
      dataset: the data that it is trained and evaluated on.
      batch_size: examples of a training step.
      plan: how to run steps; by default what suits the backend.
      sharding: divides every batch among devices; by default one device takes it all.

    Raises:
      ConfigError: the batch cannot be divided evenly.
    """

    def __init__(
        self,
        task: Task,
        dataset: Dataset,
        batch_size: int,
        plan: Plan | None = None,
        sharding: BatchSharding | None = None,
    ):
        if plan is None:
            plan = plan_for(sum(split.examples.nbytes for split in dataset.splits().values()))
        self.task, self.dataset, self.batch_size, self.plan = task, dataset, batch_size, plan
        self._compiled: set[int] = set()
        self._sharding = sharding
        self._step, jit = partial(one_step, task), jax.jit
        if sharding is not None:
            sharding.check(batch_size)
            self._step, jit = sharding.step(task), sharding.jit
        self._evaluate = jit(self._evaluation_step)
        self._pictures = jit(task.pictures) if hasattr(task, "pictures") else None
        if plan.device_resident:
            self._examples = self.placed(jnp.asarray(np.asarray(dataset.train.examples)))
            self._labels = self.placed(jnp.asarray(np.asarray(dataset.train.labels)))
            self._many_steps = jit(self._scan, donate_argnums=0)
        else:
            self._one_step = jit(self._step, donate_argnums=0)

    def placed(self, tree: Any) -> Any:
        """The arrays where steps and evaluations want a state."""
        return tree if self._sharding is None else self._sharding.whole(tree)

    def initial_state(self, seed: int) -> TrainState:
        """The state of a trial before its first step."""
        train, size = self.dataset.train, self.batch_size
        shapes = Batch(
            jax.ShapeDtypeStruct((size, *train.examples.shape[1:]), train.examples.dtype),
            jax.ShapeDtypeStruct((size, *train.labels.shape[1:]), train.labels.dtype),
        )
        return self.placed(initial_state(self.task, shapes, seed))

    def is_compiled(self, steps: int) -> bool:
        """Whether `train` has run with this number of steps before, so that it need not compile."""
        return (steps if self.plan.device_resident else 1) in self._compiled

    def train(
        self, state: TrainState, order: Iterator[np.ndarray | Batch], steps: int, seed: int
    ) -> TrainState:
        """`steps` steps, at most `steps_per_dispatch` of them; consumes as many batches.

        Args:
          state: before these steps.
          order: the examples of every step, as `batches` or `reading` gives them.
          steps: how many.
          seed: of the trial.
        """
        self._compiled.add(steps if self.plan.device_resident else 1)
        if self.plan.device_resident:
            indices = self._divided(np.stack([next(order) for _ in range(steps)]), axis=1)
            return self._many_steps(state, self._examples, self._labels, indices, seed)
        for item in itertools.islice(order, steps):
            batch = item if isinstance(item, Batch) else self._batch(item)
            state = self._one_step(state, batch, seed)
        return state

    def reading(
        self, order: Iterator[np.ndarray]
    ) -> contextlib.AbstractContextManager[Iterator[np.ndarray | Batch]]:
        """What to give `train` as its order: the same, or read ahead where the plan says so."""
        if self.plan.device_resident or not self.plan.read_ahead:
            return contextlib.nullcontext(order)
        default = jax.config.jax_default_device  # Every thread has its own.

        def load(indices: np.ndarray) -> Batch:
            with jax.default_device(default):
                batch = self._batch(indices)
                return batch if self._sharding is not None else jax.device_put(batch)

        return ReadAhead(load, order, self.plan.read_ahead, READING_THREADS)

    def lowered(self, state: TrainState, steps: int, seed: int) -> jax.stages.Lowered:
        """The program that `train` runs from this state, to look at.

        Of `steps` steps where the examples stay on the device, else of one. Compiling it costs
        nothing where `train` has compiled it already.
        """
        order = np.zeros((steps, self.batch_size), np.int32)
        if self.plan.device_resident:
            indices = self._divided(order, axis=1)
            return self._many_steps.lower(state, self._examples, self._labels, indices, seed)
        return self._one_step.lower(state, self._batch(order[0]), seed)

    def program(self, steps: int) -> tuple[Callable[..., TrainState], tuple[Any, ...]]:
        """What one dispatch of `steps` steps runs, and its arguments as shapes.

        For compiling it elsewhere; the plan must keep the examples on the device.
        """
        state = jax.eval_shape(lambda: self.initial_state(0))
        order = jax.ShapeDtypeStruct((steps, self.batch_size), jnp.int32)
        seed = jax.ShapeDtypeStruct((), jnp.int32)
        return self._scan, (state, *map(_shape, (self._examples, self._labels)), order, seed)

    def evaluate(self, state: TrainState, split: Split) -> dict[str, float]:
        """The task's metrics over every example of the split (the last batch is padded)."""
        fitting = max(1, EVALUATION_BYTES // max(1, int(np.prod(split.examples.shape[1:]))))
        size = min(self.plan.evaluation_batch, fitting, len(split))
        size = min(size, getattr(self.task, "evaluation_batch", None) or size)
        whole = size if self._sharding is None else self._sharding.padded(size)
        sums = []
        for number, start in enumerate(range(0, len(split), size)):
            length = min(size, len(split) - start)
            rows = range(whole)[self._rows(whole)]
            chosen = start + np.minimum(rows, length - 1)  # The last example pads the batch.
            examples = np.asarray(split.examples[chosen])
            labels = np.asarray(split.labels[chosen])
            batch = Batch(self._divided(examples), self._divided(labels))
            mask = self._divided(np.asarray(rows) < length)
            sums.append(self._evaluate(state.state, batch, mask, number))
        return self.task.metrics(_added(sums))

    def pictures(self, state: TrainState) -> dict[str, np.ndarray]:
        """The task's pictures of a few test examples, evenly spaced; {} where it makes none."""
        if self._pictures is None:
            return {}
        test = self.dataset.test
        chosen = np.linspace(0, len(test) - 1, min(PICTURES, len(test))).astype(int)
        batch = Batch(np.asarray(test.examples[chosen]), np.asarray(test.labels[chosen]))
        made = jax.device_get(self._pictures(state.state, batch, evaluation_keys(0)))
        return dict(zip(self.task.picture_names, made, strict=True))

    def training_metrics(self, state: TrainState) -> dict[str, float]:
        """The task's metrics over the steps since the last evaluation."""
        return self.task.metrics(_added([state.sums]))

    def _batch(self, whole: np.ndarray) -> Batch:
        """This process's part of the batch of these training examples."""
        train, indices = self.dataset.train, whole[self._rows(len(whole))]
        # Sorted, so that a memory-mapped set is read in order; put back in the batch's order.
        sort = np.argsort(indices)
        back = np.argsort(sort)
        examples = np.asarray(train.examples[indices[sort]])[back]
        return Batch(self._divided(examples), self._divided(train.labels[indices]))

    def _rows(self, length: int) -> slice:
        return slice(None) if self._sharding is None else self._sharding.rows(length)

    def _divided(self, values: np.ndarray, axis: int = 0) -> Any:
        return values if self._sharding is None else self._sharding.divided(values, axis)

    def _scan(self, state, examples, labels, order, seed):
        def step(state, chosen):
            return self._step(state, Batch(examples[chosen], labels[chosen]), seed)

        # Norms are read after a dispatch only. With the last step apart no step of the loop needs
        # them, and XLA leaves them out: 281 of ResNet-56's 1,210 launches on an H100.
        state, _ = jax.lax.scan(lambda s, chosen: (step(s, chosen), None), state, order[:-1])
        return step(state, order[-1])

    def _evaluation_step(self, state, batch, mask, number):
        return self.task.evaluation_step(state, batch, mask, evaluation_keys(number))


def _shape(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


def _added(sums: list[Any]) -> Any:
    """The sum of pytrees, leaf by leaf, in float64 on the host; their rows joined."""

    def added(*parts):
        if isinstance(parts[0], Rows):
            kept = [np.asarray(part.values)[np.asarray(part.mask, bool)] for part in parts]
            return np.concatenate(kept).astype(np.float64)
        return sum(np.asarray(part, np.float64) for part in parts)

    return jax.tree.map(added, *jax.device_get(sums), is_leaf=lambda x: isinstance(x, Rows))
