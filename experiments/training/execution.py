"""How steps are run on this machine. The only place where the backend makes a difference.

Measured for ResNet-56, batch 128, on 2 CPU cores: a step is fastest as a jitted call of its own;
inside `lax.scan` the same step takes 18 times as long, and vmapped over two seeds 3 times as long
as two calls. So on a CPU each step is one call and trials run one after another.

On an accelerator the cost is in the dispatch and in the copies from the host, so the examples stay
on the device as uint8 and many steps run in one `lax.scan`. (vmap over seeds would turn the
convolutions into grouped ones, which are often slow; until that is measured on a GPU, trials run
one after another there too.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from experiments.data.dataset import Split
from experiments.training.problem import Problem
from experiments.training.steps import TrainState, make_evaluation_step, make_train_step

# Of an evaluation: images are many and small, clips so large that fewer fill the memory.
EVALUATION_BATCH, EVALUATION_BYTES = 250, 16 << 20


@dataclasses.dataclass(frozen=True)
class Plan:
    """How to run steps.

    Attributes:
      steps_per_dispatch: steps in one call of the device.
      device_resident: whether the examples are copied to the device once, as uint8.
    """

    steps_per_dispatch: int
    device_resident: bool


def plan_for(dataset_bytes: int, backend: str | None = None) -> Plan:
    """The plan for this backend and a dataset of this size."""
    if (backend or jax.default_backend()) == "cpu":
        return Plan(steps_per_dispatch=1, device_resident=False)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 8 << 30)
    if dataset_bytes > limit // 3:
        return Plan(steps_per_dispatch=1, device_resident=False)
    return Plan(steps_per_dispatch=50, device_resident=True)


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
    """Runs steps and evaluations of one problem; compiled once for all trials."""

    def __init__(self, problem: Problem, plan: Plan):
        self.problem, self.plan = problem, plan
        train_step = make_train_step(problem)
        self._evaluate = jax.jit(make_evaluation_step(problem))
        if plan.device_resident:
            train = problem.dataset.train
            self._examples, self._labels = jnp.asarray(train.examples), jnp.asarray(train.labels)

            def many_steps(state, examples, labels, order, seed):
                def body(state, chosen):
                    return train_step(state, examples[chosen], labels[chosen], seed), None

                return jax.lax.scan(body, state, order)[0]

            self._many_steps = jax.jit(many_steps, donate_argnums=0)
        else:
            self._one_step = jax.jit(train_step, donate_argnums=0)

    def train(
        self, state: TrainState, order: Iterator[np.ndarray], steps: int, seed: int
    ) -> TrainState:
        """`steps` steps, at most `steps_per_dispatch` of them; consumes as many batches."""
        chosen = [next(order) for _ in range(steps)]
        if self.plan.device_resident:
            indices = jnp.asarray(np.stack(chosen))
            return self._many_steps(state, self._examples, self._labels, indices, seed)
        train = self.problem.dataset.train
        for indices in chosen:
            # Sorted, so that a memory-mapped set is read in order; put back in the batch's order.
            sort = np.argsort(indices)
            back = np.argsort(sort)
            examples = np.asarray(train.examples[indices[sort]])[back]
            state = self._one_step(state, examples, train.labels[indices], seed)
        return state

    def evaluate(self, state: TrainState, split: Split) -> tuple[float, float]:
        """Mean loss and accuracy over every example of the split (the last batch is padded)."""
        fitting = max(1, EVALUATION_BYTES // int(np.prod(split.examples.shape[1:])))
        size = min(EVALUATION_BATCH, fitting, len(split))
        sums = []
        for start in range(0, len(split), size):
            examples = np.asarray(split.examples[start : start + size])
            labels = split.labels[start : start + size]
            missing = size - len(labels)
            mask = np.arange(size) < len(labels)
            if missing:
                examples = np.concatenate([examples, np.repeat(examples[:1], missing, axis=0)])
                labels = np.concatenate([labels, np.repeat(labels[:1], missing)])
            sums.append(self._evaluate(state, examples, labels, mask))
        loss, correct = (sum(float(x) for x in column) for column in zip(*sums, strict=True))
        return loss / len(split), correct / len(split)
