"""What channel-directed gradients cost, beside a copy of the gradient and beside a training step.

    python -m experiments.benchmarks.channel_grad --out=results.json

Prints two tables. In each, the alternatives run in turns, and ratios are taken within a turn:

* for each shape of a kernel, the time of each method over the time of one copy of the same arrays
  (one read, one write). Small kernels are timed several to a call, as in a network, because a call
  by itself costs as much as they do;
* for each batch size, the overhead of each metric on a whole training step of ResNet-56 (SGD with
  momentum and weight decay), and the time of the metric by itself over that of the step, because
  the noise of a step hides an overhead that is smaller. The learned metric computes roots in one
  step of 20, which a median leaves out: "learned, every root" does so in each step, so a step costs
  on average the first row plus a twentieth of the difference.

Takes about ten minutes on two CPU cores; --quick less than two.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import channel_grad
from experiments.benchmarks.timing import in_turns, quartiles
from experiments.cli import lists
from experiments.cli import main as command
from experiments.models.resnet import ResNet
from experiments.system import environment
from experiments.system.errors import ConfigError
from experiments.system.files import write_json
from experiments.training.config import PRECISIONS
from experiments.training.settings import one_of

SHAPES = {
    "3x3x16x16": (3, 3, 16, 16),
    "3x3x64x64": (3, 3, 64, 64),
    "3x3x256x256": (3, 3, 256, 256),
    "3x3x512x512": (3, 3, 512, 512),
    "1x1x2048x512": (1, 1, 2048, 512),
}
QUICK_SHAPES = ("3x3x64x64", "3x3x256x256")
# The metrics of the library that change a gradient; they are timed with their default numbers.
METRICS = {name: metric for name, metric in channel_grad.METRICS.items() if name != "l2"}
# Metric -> the algorithms that are timed besides the one that the library takes.
ALGORITHMS = {"sobolev": ("dense", "fft", "prefix"), "laplacian": ("dense", "fft")}


def _methods() -> dict[str, Callable[[jax.Array], jax.Array]]:
    methods = {"copy": jnp.copy, "times two": lambda f: 2 * f}
    for name, metric in METRICS.items():
        methods[name] = metric().gradient
        for algorithm in ALGORITHMS.get(name, ()):
            methods[f"{name} {algorithm}"] = functools.partial(metric().gradient, method=algorithm)
    return methods


METHODS = _methods()
TRANSFORMS = {
    "l2": optax.identity,
    "l2 again": optax.identity,  # the control: a difference here is noise
    **{
        name: lambda metric=metric: channel_grad.scale_by_metric(metric())
        for name, metric in METRICS.items()
    },
    "laplacian raster": lambda: channel_grad.scale_by_metric(
        channel_grad.LaplacianSmoothing(), axes=channel_grad.raster
    ),
    "learned": channel_grad.scale_by_learned_metric,
    "learned, every root": functools.partial(channel_grad.scale_by_learned_metric, every=1),
}
QUICK_TRANSFORMS = ("l2", "l2 again", "sobolev")

# A call works on as many arrays of one shape as make this many elements, but on at most MOST.
ELEMENTS, MOST = 2**21, 16

MOST_TURNS, MOST_BATCH, MOST_DEPTH = 100_000, 65_536, 10_000


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "benchmark"}
    flags.DEFINE_bool("quick", False, "Fewer shapes, metrics and turns.", **where)
    flags.DEFINE_list(
        "batch_sizes", ["128", "8"],
        "Batch sizes of the training step; --batch_sizes= times no step.", **where,
    )  # fmt: skip
    flags.DEFINE_string(
        "precision", "float32",
        f"What convolutions compute in. Accepted: {', '.join(PRECISIONS)}.", **where,
    )  # fmt: skip
    flags.DEFINE_integer("depth", 56, "Layers of the ResNet: 6 n + 2.", **where)
    flags.DEFINE_integer(
        "repeats", None, "Turns for each shape. Default: 100, or 20 with --quick.", **where
    )
    flags.DEFINE_integer(
        "steps", None, "Turns for each batch size. Default: 10, or 3 with --quick.", **where
    )
    flags.DEFINE_string(
        "out", None, "JSON file for the results, with device, versions and commit.", **where
    )


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Measures, prints and returns what the flags ask for."""
    batch_sizes = lists.integers("batch_sizes", values.batch_sizes, 1, MOST_BATCH)
    one_of("precision", values.precision, PRECISIONS)
    if values.depth % 6 != 2 or not 8 <= values.depth <= MOST_DEPTH:
        raise ConfigError("depth", values.depth, f"8, 14, 20, ..., 6 n + 2, up to {MOST_DEPTH:,}")
    repeats = _turns(values, "repeats", 20 if values.quick else 100)
    steps = _turns(values, "steps", 3 if values.quick else 10)
    out = command.out_file(values)
    names = QUICK_TRANSFORMS if values.quick else tuple(TRANSFORMS)
    results: dict[str, Any] = {
        "command": "python -m experiments.benchmarks.channel_grad",
        "environment": environment.describe(),
        "settings": {
            "repeats": repeats,
            "steps": steps,
            "depth": values.depth,
            "precision": values.precision,
        },
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "kernels": {},
        "steps": {},
    }
    print(f"{results['environment']['device']}\n", flush=True)
    for shape in QUICK_SHAPES if values.quick else SHAPES:
        results["kernels"][shape] = bench_shape(SHAPES[shape], repeats)
    print(shape_table(results["kernels"]), flush=True)
    for batch in batch_sizes:
        result = bench_step(batch, values.depth, values.precision, names, steps)
        results["steps"][str(batch)] = result
        print("\n" + step_table(str(batch), result), flush=True)
    if out:
        write_json(out, results)
        print(f"\nwritten to {out}")
    return results


def bench_shape(shape: tuple[int, ...], turns: int) -> dict[str, Any]:
    """Microseconds of each method for an array of this shape, and its ratio to the copy's."""
    count = max(1, min(MOST, ELEMENTS // int(np.prod(shape))))
    keys = jax.random.split(jax.random.key(0), count)
    arrays = [jax.random.normal(key, shape) for key in keys]
    calls = {}
    for name, method in METHODS.items():
        on_all = jax.jit(lambda arrays, method=method: [method(f) for f in arrays])
        calls[name] = functools.partial(on_all, arrays)
    seconds = in_turns(calls, turns)
    return {
        "arrays_per_call": count,
        "microseconds": {k: quartiles(1e6 * s / count) for k, s in seconds.items()},
        "over_copy": {k: quartiles(s / seconds["copy"]) for k, s in seconds.items()},
    }


def bench_step(
    batch: int, depth: int, precision: str, names: tuple[str, ...], turns: int
) -> dict[str, Any]:
    """Milliseconds of a training step with each metric, its overhead, and the metric by itself."""
    model = ResNet(depth=depth, num_classes=10, dtype=jnp.dtype(precision))
    key = jax.random.key(0)
    images = jax.random.normal(key, (batch, 32, 32, 3))
    labels = jax.random.randint(key, (batch,), 0, 10)
    variables = jax.jit(functools.partial(model.init, train=False))(key, images[:1])

    def loss_of(params: Any, statistics: Any) -> tuple[jax.Array, Any]:
        logits, new = model.apply(
            {"params": params, "batch_stats": statistics},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.mean(loss), new["batch_stats"]

    def make_step(metric: optax.GradientTransformation) -> Callable[[], Any]:
        optimizer = optax.chain(
            metric, optax.add_decayed_weights(5e-4), optax.sgd(0.1, momentum=0.9)
        )

        @functools.partial(jax.jit, donate_argnums=0)
        def step(state: Any) -> Any:
            params, statistics, opt_state = state
            gradients, statistics = jax.grad(loss_of, has_aux=True)(params, statistics)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), statistics, opt_state

        params, statistics = jax.tree.map(jnp.copy, (variables["params"], variables["batch_stats"]))
        state = [(params, statistics, optimizer.init(params))]

        def call() -> Any:
            state[0] = step(state[0])
            return state[0]

        return call

    steps = in_turns({name: make_step(TRANSFORMS[name]()) for name in names}, turns)
    gradients = jax.tree.map(jnp.copy, variables["params"])
    alone = {}
    for name in names[1:]:
        alone[name] = _in_steps(TRANSFORMS[name](), gradients)
    metrics = in_turns(alone, max(50, turns))
    base = steps["l2"]
    return {
        "images_per_second": quartiles(batch / base),
        "step_milliseconds": {k: quartiles(1e3 * s) for k, s in steps.items()},
        "overhead_percent": {k: quartiles(100 * (steps[k] / base - 1)) for k in names[1:]},
        "metric_milliseconds": {k: quartiles(1e3 * s) for k, s in metrics.items()},
        "metric_percent_of_step": {
            k: quartiles(100 * s / np.median(base)) for k, s in metrics.items()
        },
    }


def shape_table(results: dict[str, Any]) -> str:
    """Time over the time of a copy, methods down, shapes across."""
    width = max(map(len, METHODS))
    lines = ["time / time of one copy of the same array: median (quartiles)"]
    lines.append(" " * width + "".join(f"{shape:>20}" for shape in results))
    for name in METHODS:
        cells = [result["over_copy"][name] for result in results.values()]
        text = (f"{c['median']:.2f} ({c['low']:.2f}-{c['high']:.2f})" for c in cells)
        lines.append(f"{name:{width}}" + "".join(f"{cell:>20}" for cell in text))
    copies = (result["microseconds"]["copy"]["median"] for result in results.values())
    lines.append(f"{'one copy':{width}}" + "".join(f"{us:>17.0f} us" for us in copies))
    return "\n".join(lines)


def _in_steps(metric: optax.GradientTransformation, gradients: Any) -> Callable[[], Any]:
    """One update after another by a metric alone."""
    update = jax.jit(metric.update)
    state = [metric.init(gradients)]

    def call() -> Any:
        changed, state[0] = update(gradients, state[0])
        return changed

    return call


def step_table(batch: str, result: dict[str, Any]) -> str:
    """Overhead on a step, and the metric by itself, as percentages of the step."""
    step = result["step_milliseconds"]["l2"]["median"]
    rate = result["images_per_second"]["median"]
    lines = [
        f"batch {batch}: a step takes {step:.1f} ms, {rate:.0f} images/s; in percent of it, "
        "median (quartiles):",
        f"{'':20}{'step with - without':>28}{'the metric by itself':>28}",
    ]
    for name in result["overhead_percent"]:
        cells = (result[column][name] for column in ("overhead_percent", "metric_percent_of_step"))
        text = (f"{c['median']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells)
        lines.append(f"{name:20}" + "".join(f"{cell:>28}" for cell in text))
    return "\n".join(lines)


def _turns(values: flags.FlagValues, name: str, default: int) -> int:
    value = values[name].value
    if value is None:
        return default
    lists.within(name, value, 1, MOST_TURNS)
    return value


if __name__ == "__main__":
    command.run(main, define)
