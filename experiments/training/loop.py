"""The training of one trial, from its first step or from its last checkpoint."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import tensorboardX

from experiments.data.dataset import Split
from experiments.system.errors import NonFiniteError
from experiments.system.progress import Progress
from experiments.training.checkpoints import Checkpoints
from experiments.training.execution import Executor, batches
from experiments.training.steps import Running, TrainState, initial_state
from experiments.training.workdir import Workdir

# The training accuracy at the end is that of at most so many examples, evenly spaced.
FINAL_TRAIN_EXAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """When to save, besides after every evaluation. It changes no result.

    Attributes:
      seconds: save when the last checkpoint is this old.
      steps: save after every so many steps, or None.
    """

    seconds: float = 120.0
    steps: int | None = None


DEFAULT_POLICY = CheckpointPolicy()


def train_trial(
    executor: Executor,
    run: str,
    seed: int,
    workdir: Workdir,
    policy: CheckpointPolicy = DEFAULT_POLICY,
    notice: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Trains one trial to its end and returns its record for summary.json.

    Goes on from the newest checkpoint in the workdir where there is one, to the same bits as
    without the interruption.

    Raises:
      NonFiniteError: the loss became infinite or NaN; the last good checkpoint is kept.
    """
    problem = executor.problem
    checkpoints = Checkpoints(workdir.checkpoints(run, seed), notice)
    best_checkpoints = Checkpoints(workdir.checkpoints(run, f"{seed}_best"), notice)
    state, best = initial_state(problem, seed), None
    restored = checkpoints.restore(state)
    if restored is not None:
        state, best = restored[0], restored[1]["best"]
        notice(f"{run}, seed {seed}: going on from step {int(state.step)} of {problem.steps}")
    first_step = step = int(state.step)
    best_checkpoints.discard_after(step)  # They will be made again; nothing is saved before them.
    workdir.keep_metrics(
        lambda line: (line["run"], line["seed"]) != (run, seed) or line["step"] <= step
    )

    order = batches(seed, len(problem.dataset.train), problem.batch_size, step)
    clock, saved_at = Clock(), time.monotonic()
    writer = tensorboardX.SummaryWriter(
        str(workdir.tensorboard(run, seed)), purge_step=step + 1 if step else None
    )
    label = f"{run}, seed {seed}"
    examples = problem.batch_size
    with Progress(label, problem.steps * examples, done=step * examples) as progress, writer:
        while step < problem.steps:
            count = _steps_until_stop(step, problem, executor.plan.steps_per_dispatch, policy)
            with clock.running(count, warm=step > first_step):
                state = executor.train(state, order, count, seed)
                loss = float(state.running.loss)
            step += count
            if not math.isfinite(loss):
                raise _non_finite("training loss", loss, run, seed, step, checkpoints)
            progress.update(step * examples)

            if step % problem.evaluate_every == 0 or step == problem.steps:
                record = {"run": run, "seed": seed, **_training_record(problem, state, step)}
                record.update(_evaluate(executor, state))
                record["images_per_second"] = clock.rate(problem.batch_size)
                loss = record["test_loss"]
                if not math.isfinite(loss):
                    raise _non_finite("test loss", loss, run, seed, step, checkpoints)
                workdir.append_metrics(record)
                _to_tensorboard(writer, record)
                progress.line(_line(record, problem))
                score = record.get("validation_accuracy")
                if score is not None and (best is None or score > best["validation_accuracy"]):
                    best = {k: record[k] for k in ("step", "validation_accuracy", "test_accuracy")}
                    best_checkpoints.save(step, state)
                state = dataclasses.replace(state, running=Running.zero())
                checkpoints.save(step, state, best=best)
                saved_at = time.monotonic()
            elif _due(step, policy, saved_at):
                checkpoints.save(step, state, best=best)
                saved_at = time.monotonic()
    return _result(executor, state, run, seed, workdir, best)


class Clock:
    """Time spent in training steps, without evaluation, checkpoints and compilation."""

    def __init__(self):
        self._seconds, self._steps = 0.0, 0

    def running(self, steps: int, warm: bool) -> Clock:
        """Times the block as so many steps; one that compiles (not warm) does not count."""
        self._block = (steps, warm)
        return self

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_) -> None:
        steps, warm = self._block
        if warm:
            self._seconds += time.monotonic() - self._start
            self._steps += steps

    def rate(self, batch_size: int) -> float | None:
        """Examples per second so far, or None before the first counted step."""
        return self._steps * batch_size / self._seconds if self._steps else None


def _steps_until_stop(step: int, problem, per_dispatch: int, policy: CheckpointPolicy) -> int:
    stops = [problem.steps - step, problem.evaluate_every - step % problem.evaluate_every]
    if policy.steps:
        stops.append(policy.steps - step % policy.steps)
    return min(per_dispatch, *stops)


def _due(step: int, policy: CheckpointPolicy, saved_at: float) -> bool:
    if policy.steps and step % policy.steps == 0:
        return True
    return time.monotonic() - saved_at > policy.seconds


def _training_record(problem, state: TrainState, step: int) -> dict[str, Any]:
    running = jax.device_get(state.running)
    gradient, parameters, update = (float(x) for x in state.norms)
    return {
        "step": step,
        "epoch": step / problem.steps_per_epoch,
        "train_loss": float(running.loss / running.steps),
        "train_accuracy": float(running.correct / (running.steps * problem.batch_size)),
        "penalty": float(running.penalty / running.steps),
        "learning_rate": float(problem.learning_rate(step - 1)),
        "gradient_norm": gradient,
        "parameter_norm": parameters,
        "update_norm": update,
    }


def _evaluate(executor: Executor, state: TrainState) -> dict[str, float]:
    values = {}
    for name, split in executor.problem.dataset.splits().items():
        if name != "train" and len(split):  # A source may have too little to cut a validation set.
            values[f"{name}_loss"], values[f"{name}_accuracy"] = executor.evaluate(state, split)
    return values


def _result(executor, state, run, seed, workdir, best) -> dict[str, Any]:
    """The record of a finished trial, from its last line of metrics and its final state."""
    lines = [x for x in workdir.read_metrics() if (x["run"], x["seed"]) == (run, seed)]
    last = lines[-1]
    train = executor.problem.dataset.train
    stride = -(-len(train) // FINAL_TRAIN_EXAMPLES)
    sample = Split(train.examples[::stride], train.labels[::stride])
    train_loss, train_accuracy = executor.evaluate(state, sample)
    result = {
        "seed": seed,
        "test_accuracy": last["test_accuracy"],
        "test_loss": last["test_loss"],
        "train_accuracy": train_accuracy,
        "train_loss": train_loss,
        "train_examples_evaluated": len(sample),
        "steps": last["step"],
        "images_per_second": last["images_per_second"],
    }
    if "validation_accuracy" in last:
        result["validation_accuracy"] = last["validation_accuracy"]
        result["best"] = best
    return result


def _non_finite(what, value, run, seed, step, checkpoints: Checkpoints) -> NonFiniteError:
    good = checkpoints.steps()
    kept = f"the checkpoint of step {good[-1]} is kept" if good else "there is no checkpoint yet"
    return NonFiniteError(
        f"{run}, seed {seed}: {what} became {value} by step {step}; {kept}. "
        "A lower --learning_rate may help"
    )


def _line(record: dict[str, Any], problem) -> str:
    parts = [
        f"epoch {record['epoch']:.2f}",
        f"step {record['step']}/{problem.steps}",
        f"train loss {record['train_loss']:.3f} accuracy {record['train_accuracy']:.3f}",
    ]
    if "validation_accuracy" in record:
        parts.append(f"validation accuracy {record['validation_accuracy']:.3f}")
    parts.append(f"test loss {record['test_loss']:.3f} accuracy {record['test_accuracy']:.3f}")
    if record["images_per_second"]:
        parts.append(f"{record['images_per_second']:.0f} examples/s")
    return ", ".join(parts)


def _to_tensorboard(writer: tensorboardX.SummaryWriter, record: dict[str, Any]) -> None:
    for name, value in record.items():
        if name not in ("run", "seed", "step") and value is not None:
            writer.add_scalar(name, value, record["step"])
    writer.flush()
