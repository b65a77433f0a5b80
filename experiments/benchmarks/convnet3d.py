"""What the OptFlow regularizer costs in a training step of the 3D ConvNet.

    python -m experiments.benchmarks.convnet3d --out=results.json

Two networks: the paper's, at batch 8 on clips of 16 x 112 x 112, and the narrow one, at batch 16 on
16 x 32 x 32. For each it prints the overhead of the regularizer on a whole step (steps with and
without it in turns), and the time of its cost and gradient by themselves over the time of the step,
because the noise of a step hides an overhead that is smaller.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import scipy.stats
from absl import flags

import optflow_jax
from experiments.benchmarks.timing import in_turns, quartiles
from experiments.cli import lists
from experiments.cli import main as command
from experiments.data.dataset import Dataset, Split
from experiments.models.convnet3d import FIRST_LAYER, ConvNet3D, narrow
from experiments.system import environment
from experiments.system.files import write_json
from experiments.tasks.supervised import Supervised, classification
from experiments.training.state import step_keys, stream
from experiments.training.task import Batch

MIN_TURNS, TURNS_ALONE = 7, 200
MOST_SECONDS = 86_400.0
# Name -> (network, height and width of a clip, batch size).
SIZES: dict[str, tuple[Callable[..., ConvNet3D], int, int]] = {
    "16x112x112": (ConvNet3D, 112, 8),
    "16x32x32": (narrow, 32, 16),
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "benchmark"}
    flags.DEFINE_list("sizes", list(SIZES), f"Clips. Accepted: {', '.join(SIZES)}.", **where)
    flags.DEFINE_float(
        "seconds", 150.0, f"Time for the steps of each size; at least {MIN_TURNS} turns.", **where
    )
    flags.DEFINE_string(
        "out", None, "JSON file for the results, with device, versions and commit.", **where
    )


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Measures, prints and returns what the flags ask for."""
    sizes = lists.names("sizes", values.sizes, SIZES)
    lists.within("seconds", values.seconds, 1e-3, MOST_SECONDS)
    out = command.out_file(values)
    results: dict[str, Any] = {"environment": environment.describe(), "sizes": {}}
    print(results["environment"]["device"], flush=True)
    for name in sizes:
        result = bench(*SIZES[name], values.seconds)
        results["sizes"][name] = result
        print(line(name, result), flush=True)
    if out:
        write_json(out, results)
        print(f"written to {out}")
    return results


def bench(
    network: Callable[..., ConvNet3D], size: int, batch_size: int, seconds: float
) -> dict[str, Any]:
    """Milliseconds of a step without and with the regularizer, and of the regularizer alone.

    Args:
      network: makes the model.
      size: height and width of the clips.
      batch_size: clips of a step.
      seconds: time for the steps.

    Returns:
      "overhead_percent" compares the two steps of each turn; its "interval" holds the true median
      with 95 % confidence (order statistics), which tells an overhead that the noise hides from one
      that is not there. The rest is in milliseconds and in percent of a step.
    """
    clips = random_clips(size, batch_size)
    batch = Batch(clips.train.examples, clips.train.labels)
    calls, kernel = {}, None
    for name, strength in (("without", 0.0), ("with", 1.0)):
        task = make_task(network, clips, strength)
        state = task.init(stream(0, 0))
        kernel = np.array(state.params[FIRST_LAYER]["kernel"])
        step = jax.jit(lambda *arguments, task=task: task.train_step(*arguments))
        calls[name] = functools.partial(step, state, batch, step_keys(0, 0))
    one = in_turns(calls, 1)
    turns = max(MIN_TURNS, int(seconds / sum(float(t[0]) for t in one.values())))
    times = in_turns(calls, turns)
    overhead = 100 * (times["with"] / times["without"] - 1)
    interval = scipy.stats.quantile_test(overhead, p=0.5).confidence_interval(0.95)
    alone = jax.jit(jax.value_and_grad(optflow_jax.regularizer))
    cost = in_turns({"optflow": functools.partial(alone, kernel)}, TURNS_ALONE)["optflow"]
    return {
        "filters": kernel.shape[-1],
        "filter_shape": kernel.shape[:3],
        "turns": turns,
        "step_milliseconds": {k: quartiles(1e3 * v) for k, v in times.items()},
        "overhead_percent": quartiles(overhead) | {"interval": [float(x) for x in interval]},
        "optflow_milliseconds": quartiles(1e3 * cost),
        "optflow_percent_of_step": quartiles(100 * cost / np.median(times["without"])),
    }


def random_clips(size: int, batch_size: int) -> Dataset:
    """One batch of noise as a dataset, clips (16, size, size, 3)."""
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (batch_size, 16, size, size, 3), dtype=np.uint8)
    split = Split(examples, rng.integers(0, 10, batch_size).astype(np.int32))
    return Dataset("noise", split, split, tuple("0123456789"), "random numbers")


def make_task(network: Callable[..., ConvNet3D], clips: Dataset, strength: float) -> Supervised:
    """The task of ucf101_convnet3d with the optimizer of the paper's table 1.

    Args:
      network: makes the model.
      clips: what it is trained on.
      strength: weight of the OptFlow cost of the first layer; 0 for a step without it.
    """

    def penalty(params: Any) -> jax.Array:
        return strength * optflow_jax.regularizer(params[FIRST_LAYER]["kernel"])

    schedule = optax.constant_schedule(1e-5)
    return classification(
        network(num_classes=clips.num_classes),
        clips,
        optax.chain(optax.add_decayed_weights(2e-3), optax.sgd(schedule, momentum=0.5)),
        schedule,
        penalty=penalty if strength else None,
    )


def line(name: str, result: dict[str, Any]) -> str:
    """The result of one size in words."""
    step, alone = result["step_milliseconds"]["without"], result["optflow_milliseconds"]
    percent, overhead = result["optflow_percent_of_step"], result["overhead_percent"]
    low, high = overhead["interval"]
    return (
        f"{name}, {result['filters']} filters: step {step['median']:.1f} ms; cost and gradient of "
        f"the regularizer {alone['median']:.3f} ms = {percent['median']:.3f} % of it; step with - "
        f"without {overhead['median']:+.2f} %, median of {result['turns']} turns "
        f"[95 %: {low:+.2f}, {high:+.2f}]"
    )


if __name__ == "__main__":
    command.run(main, define)
