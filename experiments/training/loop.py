"""The training of one trial, from its first step or from its last checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any

from experiments.system import interrupt
from experiments.system.errors import NonFiniteError
from experiments.system.output import say
from experiments.system.progress import Progress
from experiments.training import finite, processes
from experiments.training.execution import Executor, Plan, batches
from experiments.training.networks import NORMS, networks
from experiments.training.state import TrainState, cleared
from experiments.training.trial_files import TrialFiles

# The training metrics at the end are those of at most this many examples, evenly spaced.
FINAL_TRAIN_EXAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """When to save, besides after every evaluation. It changes no result.

    Attributes:
      seconds: save when the last checkpoint is this old.
      steps: save whenever the number of steps done is a multiple of this, or None.
    """

    seconds: float = 120.0
    steps: int | None = None


DEFAULT_POLICY = CheckpointPolicy()


@dataclasses.dataclass(frozen=True)
class Trial:
    """One trial of one run, and how long it is.

    Attributes:
      run: name of the run.
      seed: fixes initialisation, order of the data, augmentation and dropout.
      steps: steps in all.
      evaluate_every: steps between evaluations.
      identity: what its result depends on, as values for JSON; saved in its checkpoints.
    """

    run: str
    seed: int
    steps: int
    evaluate_every: int
    identity: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.run}, seed {self.seed}"


def train_trial(
    executor: Executor,
    trial: Trial,
    files: TrialFiles,
    policy: CheckpointPolicy = DEFAULT_POLICY,
    notice: Callable[[str], None] = say,
) -> dict[str, Any]:
    """Trains one trial to its end and returns its record for summary.json.

    Goes on from the newest checkpoint where there is one, to the same bits as without the
    interruption. Where several processes train the trial together, the first one reads and writes
    for all, and checkpoints come by steps alone.

    Raises:
      NonFiniteError: a loss, a metric or a parameter became infinite or NaN; the last good
        checkpoint is kept.
      UserError: the checkpoints in the workdir belong to other settings.
    """
    state, best, records = executor.initial_state(trial.seed), None, []
    restored = processes.from_first(lambda: files.restore(state), state)
    if restored is not None:
        state, extra = executor.placed(restored[0]), restored[1]
        best, records = extra["best"], extra["records"]
        notice(f"{trial.label}: going on from step {int(state.step)} of {trial.steps}")
    first_step = step = int(state.step)
    files.begin(step, records)

    size = executor.batch_size
    order = batches(trial.seed, len(executor.dataset.train), size, step)
    clock, saved_at = Clock(), time.monotonic()
    shown = Progress(trial.label, trial.steps * size, done=step * size)
    with contextlib.closing(files), executor.reading(order) as order, shown as progress:
        while step < trial.steps:
            count = _steps_until_stop(step, trial, executor.plan, policy)
            with clock.running(count, counts=executor.is_compiled(count) and step > first_step):
                state = executor.train(state, order, count, trial.seed)
                fine = finite.is_finite(state.sums)
            step += count
            interrupt.raise_if_pending()
            if not fine:
                bad = finite.non_finite_values(executor.training_metrics(state))
                raise _non_finite(bad, "training ", trial, step, files)
            progress.update(step * size)

            if step % trial.evaluate_every == 0 or step == trial.steps:
                record = {
                    "run": trial.run, "seed": trial.seed, **_training_record(executor, state, step),
                }  # fmt: skip
                bad = finite.non_finite_values(record)
                bad |= dict.fromkeys(finite.non_finite_parts(state.state), float("nan"))
                if not bad:
                    record.update(_evaluate(executor, state))
                    record["images_per_second"] = clock.rate(size)
                    bad = finite.non_finite_values(record)
                if bad:
                    raise _non_finite(bad, "", trial, step, files)
                records.append(record)
                files.add(record, executor.pictures(state))
                progress.line(_line(record, trial, executor))
                state = executor.placed(cleared(state))
                before, best = best, _best(best, record, executor)
                files.save(step, state, {"best": best, "records": records}, best is not before)
                saved_at = time.monotonic()
            elif _due(step, policy, saved_at):
                files.save(step, state, {"best": best, "records": records})
                saved_at = time.monotonic()
        files.end(records)
    return _result(executor, state, trial, records[-1], best)


def attempt(
    executor: Executor,
    trial: Trial,
    files: TrialFiles,
    policy: CheckpointPolicy = DEFAULT_POLICY,
    notice: Callable[[str], None] = say,
) -> dict[str, Any]:
    """`train_trial`, where a trial that becomes non-finite gets a record with its message."""
    try:
        return train_trial(executor, trial, files, policy, notice)
    except NonFiniteError as error:
        notice(f"error: {error}")
        headline = executor.task.headline
        return {"seed": trial.seed, "error": str(error), f"test_{headline.name}": None}


class Clock:
    """Time spent in training steps, without evaluation, checkpoints and compilation."""

    def __init__(self):
        self._seconds, self._steps = 0.0, 0

    def running(self, steps: int, counts: bool) -> Clock:
        """Times the block as this many steps, or not at all where something is compiled in it."""
        self._block = (steps, counts)
        return self

    def __enter__(self) -> None:
        self._start = time.monotonic()

    def __exit__(self, *_) -> None:
        steps, counts = self._block
        if counts:
            self._seconds += time.monotonic() - self._start
            self._steps += steps

    def rate(self, batch_size: int) -> float | None:
        """Examples per second so far, or None before the first counted step."""
        return self._steps * batch_size / self._seconds if self._steps else None


def _steps_until_stop(step: int, trial: Trial, plan: Plan, policy: CheckpointPolicy) -> int:
    stops = [trial.steps - step, trial.evaluate_every - step % trial.evaluate_every]
    if policy.steps:
        stops.append(policy.steps - step % policy.steps)
    return min(plan.dispatch(trial.evaluate_every), *stops)


def _due(step: int, policy: CheckpointPolicy, saved_at: float) -> bool:
    if policy.steps and step % policy.steps == 0:
        return True
    # The clocks of several processes differ, and all of them must do the same.
    return not processes.several() and time.monotonic() - saved_at > policy.seconds


def _training_record(executor: Executor, state: TrainState, step: int) -> dict[str, Any]:
    record: dict[str, Any] = {
        "step": step,
        "epoch": step / (len(executor.dataset.train) // executor.batch_size),
    }
    alone = getattr(executor.task, "training_only", ())
    for name, value in executor.training_metrics(state).items():
        record[name if name in alone else f"train_{name}"] = value
    for name, schedule in executor.task.schedules.items():
        record[name] = float(schedule(step - 1))
    for name, network in networks(state.state).items():
        for norm, value in zip(NORMS, network.norms, strict=True):
            record[f"{name}_{norm}" if name else norm] = float(value)
    return record


def _evaluate(executor: Executor, state: TrainState) -> dict[str, float]:
    values = {}
    for split_name, split in executor.dataset.splits().items():
        # A source may have too few examples to cut a validation split.
        if split_name != "train" and len(split):
            for name, value in executor.evaluate(state, split).items():
                values[f"{split_name}_{name}"] = value
    return values


def _best(
    best: dict[str, Any] | None, record: dict[str, Any], executor: Executor
) -> dict[str, Any] | None:
    """The better of the best evaluation so far and a new one, by the headline on validation."""
    headline = executor.task.headline
    keys = (f"validation_{headline.name}", f"test_{headline.name}")
    score = record.get(keys[0])
    if score is None or (best is not None and not headline.better(score, best[keys[0]])):
        return best
    return {"step": record["step"], **{key: record[key] for key in keys}}


def _result(
    executor: Executor,
    state: TrainState,
    trial: Trial,
    last: dict[str, Any],
    best: dict[str, Any] | None,
) -> dict[str, Any]:
    """The record of a finished trial, from its last evaluation and its final state."""
    train = executor.dataset.train
    most = getattr(executor.task, "final_train_examples", FINAL_TRAIN_EXAMPLES)
    stride = -(-len(train) // most)
    sample = train.take(slice(None, None, stride))
    result = {"seed": trial.seed, "steps": last["step"]}
    for name, value in last.items():
        if name.startswith(("test_", "validation_")):
            result[name] = value
    for name, value in executor.evaluate(state, sample).items():
        result[f"train_{name}"] = value
    result["train_examples_evaluated"] = len(sample)
    result["images_per_second"] = last["images_per_second"]
    if best is not None:
        result["best"] = best
    return result


def _non_finite(
    values: dict[str, float], prefix: str, trial: Trial, step: int, files: TrialFiles
) -> NonFiniteError:
    good = files.kept()
    kept = f"the checkpoint of step {good[-1]} is kept" if good else "there is no checkpoint yet"
    what = ", ".join(f"{prefix}{name.replace('_', ' ')}" for name in values) or "a sum of training"
    value = next(iter(values.values()), float("nan"))
    return NonFiniteError(
        f"{trial.label}: {what} became {value} by step {step}; {kept}. A lower learning_rate may "
        "help"
    )


def _line(record: dict[str, Any], trial: Trial, executor: Executor) -> str:
    headline = executor.task.headline
    parts = [f"epoch {record['epoch']:.2f}", f"step {record['step']}/{trial.steps}"]
    for split in ("train", "validation", "test"):
        shown = [
            f"{name.replace('_', ' ')} {record[f'{split}_{name}']:.3f}"
            for name in dict.fromkeys(("loss", headline.name))
            if f"{split}_{name}" in record
        ]
        if shown:
            parts.append(f"{split} {' '.join(shown)}")
    if record["images_per_second"]:
        parts.append(f"{record['images_per_second']:.0f} examples/s")
    return ", ".join(parts)
