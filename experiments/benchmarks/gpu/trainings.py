"""Trainings of the ResNet as the engine runs them, to be timed dispatch by dispatch."""

from __future__ import annotations

from typing import Any

from experiments import cifar_resnet56
from experiments.benchmarks.gpu.setup import Setup
from experiments.data.dataset import Dataset
from experiments.training.config import Length, MetricConfig, OptimizerConfig
from experiments.training.execution import Executor, batches


def config(
    setup: Setup, metric: str, batch: int, precision: str = "float32"
) -> cifar_resnet56.CifarConfig:
    """The settings of a short training with one evaluation, at its end.

    All parts take these, so that a program that one has compiled serves the others too.
    """
    steps = setup.sizes.steps.get(setup.dataset.name, setup.sizes.steps[""])
    epochs = steps / (len(setup.dataset.train) // batch)
    return cifar_resnet56.CifarConfig(
        depth=setup.sizes.depth,
        precision=precision,
        optimizer=OptimizerConfig(schedule="cosine", metric=MetricConfig(name=metric)),
        length=Length(batch_size=batch, epochs=epochs, evaluate_every=epochs),
    )


class Training:
    """A trial that goes on by one dispatch with each call; the first call compiles.

    Args:
      config: of the network.
      dataset: that it is trained on.
      seed: of the trial.
    """

    def __init__(self, config: cifar_resnet56.CifarConfig, dataset: Dataset, seed: int = 0):
        self._config, self._dataset, self._seed = config, dataset, seed
        self._executor: Executor | None = None
        self._state: Any = None

    def __call__(self) -> Any:
        executor, size = self.executor, self._config.length.batch_size
        if self._state is None:
            self._state = executor.initial_state(self._seed)
            self._order = batches(self._seed, len(self._dataset.train), size, 0)
        self._state = executor.train(self._state, self._order, self.steps, self._seed)
        return self._state

    def again(self, seed: int) -> Training:
        """Another trial with the same compiled program."""
        other = Training(self._config, self._dataset, seed)
        other._executor = self.executor
        return other

    @property
    def executor(self) -> Executor:
        """The engine's, made when it is first asked for."""
        if self._executor is None:
            task, length = cifar_resnet56.build(self._config, self._dataset)
            self._executor = Executor(task, self._dataset, length.batch_size)
        return self._executor

    @property
    def steps(self) -> int:
        """Steps of one call."""
        return self.executor.plan.steps_per_dispatch

    @property
    def images(self) -> int:
        """Images of one call."""
        return self.steps * self._config.length.batch_size

    def cost(self) -> dict[str, float]:
        """FLOP and bytes of one step, from the program that the engine compiled.

        The analysis counts the body of a scan once, and a dispatch is a scan and one step more, so
        the program of several steps counts as two. On a GPU it knows nothing of the convolutions
        that cuDNN runs, so FLOP are those of the program before it was optimised if they are more.
        Bytes may count the examples that stay on the device as read in every step:
        "resident_bytes" says how many that are.
        """
        executor = self.executor
        lowered = executor.lowered(self._state, self.steps, self._seed)
        kept = executor.plan.device_resident
        counted = min(self.steps, 2) if kept else 1
        resident = self._dataset.train.examples.nbytes if kept else 0
        compiled = _analysis(lowered.compile().cost_analysis(), counted)
        before = _analysis(lowered.cost_analysis(), counted)
        return {
            "flop": max(compiled["flops"], before["flops"]),
            "bytes": compiled["bytes accessed"],
            "flop_of_the_compiled_program": compiled["flops"],
            "bytes_before_fusion": before["bytes accessed"],
            "resident_bytes": resident,
        }


def _analysis(found: Any, steps: int) -> dict[str, float]:
    """FLOP and bytes of one of the steps that an analysis counts, 0 where a backend has none."""
    found = found[0] if isinstance(found, list | tuple) else found or {}
    names = "flops", "bytes accessed"
    return {name: max(0.0, float(found.get(name, 0.0))) / steps for name in names}
