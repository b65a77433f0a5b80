"""How much does the OptFlow regularizer cost? Its part of a training step of the 3D ConvNet.

    python -m experiments.benchmarks.convnet3d --out=results.json

For the paper's network at batch 8 on clips of 16 x 112 x 112 and the narrow one at batch 16 on
16 x 32 x 32: the overhead of the regularizer on a whole step, with and without it in turns, and the
time of its cost and gradient alone over the time of the step, because an overhead below the noise
of a step cannot be seen in the step.
"""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import jax
import numpy as np
import scipy.stats
from absl import flags

import optflow_jax
from experiments import ucf101_convnet3d as binary
from experiments.benchmarks.timing import in_turns, quartiles
from experiments.cli import main as cli_main
from experiments.data.dataset import Dataset, Split
from experiments.system import environment
from experiments.system.files import write_json
from experiments.training.steps import initial_state, make_train_step

FLAGS = flags.FLAGS
MIN_TURNS = 7
SIZES = {"16x112x112": (112, 8), "16x32x32": (32, 16)}


def define() -> None:
    flags.DEFINE_string("out", None, "JSON file for the results, with device and versions.")
    flags.DEFINE_list("sizes", list(SIZES), f"Clips. Accepted: {', '.join(SIZES)}.")
    flags.DEFINE_float("seconds", 150.0, "Time for the steps of each size; at least 7 turns.")


def random_clips(size: int, batch: int) -> Dataset:
    """One batch of noise as a dataset."""
    rng = np.random.default_rng(0)
    examples = rng.integers(0, 256, (batch, 16, size, size, 3), dtype=np.uint8)
    split = Split(examples, rng.integers(0, 10, batch).astype(np.int32))
    return Dataset("noise", split, split, tuple("0123456789"), "random numbers")


def bench(size: int, batch: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of a step without and with the regularizer, and of the regularizer alone.

    "overhead_percent" is of the paired steps of each turn; its "interval" holds the true median
    with 95 % confidence (order statistics), so an overhead that the noise hides can be told from
    one that is not there.
    """
    clips = random_clips(size, batch)
    calls, kernel = {}, None
    for name, strength in (("without", 0.0), ("with", 1.0)):
        config = binary.VideoConfig(
            dataset="noise", model="convnet3d", batch_size=batch, epochs=1.0,
            learning_rate=1e-5, optflow_strength=strength,
        )  # fmt: skip
        problem = binary.build(config, clips)
        state = initial_state(problem, 0)
        kernel = np.array(state.params[binary.FIRST_LAYER]["kernel"])
        step = jax.jit(make_train_step(problem))
        calls[name] = functools.partial(step, state, clips.train.examples, clips.train.labels, 0)
    one = in_turns(calls, 1)
    turns = max(MIN_TURNS, int(seconds / sum(float(t[0]) for t in one.values())))
    times = in_turns(calls, turns)
    overhead = 100 * (times["with"] / times["without"] - 1)
    interval = scipy.stats.quantile_test(overhead, p=0.5).confidence_interval(0.95)
    alone = jax.jit(jax.value_and_grad(optflow_jax.regularizer))
    cost = in_turns({"optflow": functools.partial(alone, kernel)}, 200)["optflow"]
    return {
        "filters": kernel.shape[-1],
        "filter_shape": kernel.shape[:3],
        "turns": turns,
        "step_milliseconds": {k: quartiles(1e3 * v) for k, v in times.items()},
        "overhead_percent": quartiles(overhead) | {"interval": [float(x) for x in interval]},
        "optflow_milliseconds": quartiles(1e3 * cost),
        "optflow_percent_of_step": quartiles(100 * cost / np.median(times["without"])),
    }


def main() -> None:
    results = {"environment": environment.describe(), "sizes": {}}
    print(results["environment"]["device"], flush=True)
    for name in FLAGS.sizes:
        result = bench(*SIZES[name], FLAGS.seconds)
        results["sizes"][name] = result
        step, alone = result["step_milliseconds"]["without"], result["optflow_milliseconds"]
        percent, overhead = result["optflow_percent_of_step"], result["overhead_percent"]
        print(
            f"{name}, {result['filters']} filters: step {step['median']:.1f} ms; cost and gradient "
            f"of the regularizer {alone['median']:.3f} ms = {percent['median']:.3f} % of it; step "
            f"with - without {overhead['median']:+.2f} %, median of {result['turns']} turns "
            f"[95 %: {overhead['interval'][0]:+.2f}, {overhead['interval'][1]:+.2f}]",
            flush=True,
        )
    if FLAGS.out:
        write_json(pathlib.Path(FLAGS.out).expanduser(), results)


if __name__ == "__main__":
    define()
    cli_main.run(main)
