"""What channel-directed gradients cost: algorithms against a copy, metrics in a training step.

    python -m experiments.benchmarks.channel_grad --out=results.json

Prints two tables, each measured in one run with the alternatives in turn, and ratios within a turn:

* for each shape of a kernel, the time of each method over the time of one copy of the same arrays
  (one read, one write). Small kernels are timed several to a call, as in a network, because a call
  by itself costs as much as they do;
* for each batch size, the overhead of each metric on a whole training step of ResNet-56 (SGD with
  momentum and weight decay), and the time of the metric by itself over that of the step, because
  an overhead below the noise of a step of seconds cannot be seen in the step.

Takes about ten minutes on two CPU cores; --quick less than two.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

import channel_grad
from experiments.benchmarks.timing import in_turns, quartiles
from experiments.cli import main as cli_main
from experiments.models.resnet import ResNet
from experiments.system import environment
from experiments.system.files import write_json

SHAPES = {
    "3x3x16x16": (3, 3, 16, 16),
    "3x3x64x64": (3, 3, 64, 64),
    "3x3x256x256": (3, 3, 256, 256),
    "3x3x512x512": (3, 3, 512, 512),
    "1x1x2048x512": (1, 1, 2048, 512),
}
QUICK_SHAPES = ("3x3x64x64", "3x3x256x256")
PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

METHODS = {
    "copy": jnp.copy,
    "times two": lambda f: 2 * f,
    "reweighted_l2": channel_grad.ReweightedL2().gradient,
    "sobolev": channel_grad.Sobolev().gradient,
    "sobolev dense": functools.partial(channel_grad.Sobolev().gradient, method="dense"),
    "sobolev fft": functools.partial(channel_grad.Sobolev().gradient, method="fft"),
    "sobolev prefix": functools.partial(channel_grad.Sobolev().gradient, method="prefix"),
    "laplacian": channel_grad.LaplacianSmoothing().gradient,
    "laplacian dense": functools.partial(
        channel_grad.LaplacianSmoothing().gradient, method="dense"
    ),
    "laplacian fft": functools.partial(channel_grad.LaplacianSmoothing().gradient, method="fft"),
}
TRANSFORMS = {
    "l2": optax.identity,
    "l2 again": optax.identity,  # the control: what differs here is noise
    "reweighted_l2": channel_grad.scale_by_reweighted_l2,
    "sobolev": channel_grad.scale_by_sobolev,
    "laplacian": channel_grad.scale_by_laplacian_smoothing,
    "laplacian raster": functools.partial(
        channel_grad.scale_by_laplacian_smoothing, axes=channel_grad.raster
    ),
}

# A call works on as many arrays of one shape as make this many elements, but on at most MOST.
ELEMENTS, MOST = 2**21, 16

FLAGS = flags.FLAGS


def define() -> None:
    flags.DEFINE_string("out", None, "JSON file for the results, with device, versions and commit.")
    flags.DEFINE_bool("quick", False, "Fewer shapes, metrics and repetitions.")
    flags.DEFINE_list(
        "batch_sizes", ["128", "8"], "Batch sizes of the training step; empty for none."
    )
    flags.DEFINE_string(
        "precision", "float32", f"What convolutions compute in. Accepted: {', '.join(PRECISIONS)}."
    )
    flags.DEFINE_integer("depth", 56, "Layers of the ResNet: 6 n + 2.", lower_bound=8)
    flags.DEFINE_integer("repeats", None, "Turns for each shape. Default: 100, or 20 if --quick.")
    flags.DEFINE_integer("steps", None, "Turns for each batch size. Default: 10, or 3 if --quick.")
    flags.register_validator(
        "batch_sizes",
        lambda sizes: all(size.isdigit() and int(size) > 0 for size in sizes),
        "accepted: positive integers, separated by commas",
    )
    flags.register_validator(
        "precision", lambda name: name in PRECISIONS, f"accepted: {', '.join(PRECISIONS)}"
    )
    flags.register_validator(
        "depth", lambda depth: (depth - 2) % 6 == 0, "accepted: 6 n + 2, such as 56"
    )
    for _name in ("repeats", "steps"):
        flags.register_validator(_name, lambda n: n is None or n > 0, "accepted: integers > 0")


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
    model = ResNet(depth=depth, num_classes=10, dtype=PRECISIONS[precision])
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
        metric = TRANSFORMS[name]()
        update = jax.jit(lambda g, metric=metric: metric.update(g, optax.EmptyState())[0])
        alone[name] = functools.partial(update, gradients)
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


def step_table(batch: str, result: dict[str, Any]) -> str:
    """Overhead on a step, and the metric by itself, as percentages of the step."""
    step = result["step_milliseconds"]["l2"]["median"]
    rate = result["images_per_second"]["median"]
    lines = [
        f"batch {batch}: a step takes {step:.1f} ms, {rate:.0f} images/s; in percent of it, "
        "median (quartiles):",
        f"{'':18}{'step with - without':>28}{'the metric by itself':>28}",
    ]
    for name in result["overhead_percent"]:
        cells = (result[column][name] for column in ("overhead_percent", "metric_percent_of_step"))
        text = (f"{c['median']:.2f} ({c['low']:.2f} to {c['high']:.2f})" for c in cells)
        lines.append(f"{name:18}" + "".join(f"{cell:>28}" for cell in text))
    return "\n".join(lines)


def main() -> None:
    repeats = FLAGS.repeats or (20 if FLAGS.quick else 100)
    steps = FLAGS.steps or (3 if FLAGS.quick else 10)
    names = ("l2", "l2 again", "sobolev") if FLAGS.quick else tuple(TRANSFORMS)
    results = {
        "command": "python -m experiments.benchmarks.channel_grad",
        "environment": environment.describe(),
        "settings": {
            "repeats": repeats,
            "steps": steps,
            "depth": FLAGS.depth,
            "precision": FLAGS.precision,
        },
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "kernels": {},
        "steps": {},
    }
    print(f"{results['environment']['device']}\n", flush=True)
    for shape in QUICK_SHAPES if FLAGS.quick else SHAPES:
        results["kernels"][shape] = bench_shape(SHAPES[shape], repeats)
    print(shape_table(results["kernels"]), flush=True)
    for batch in FLAGS.batch_sizes:
        result = bench_step(int(batch), FLAGS.depth, FLAGS.precision, names, steps)
        results["steps"][batch] = result
        print("\n" + step_table(batch, result), flush=True)
    if FLAGS.out:
        write_json(pathlib.Path(FLAGS.out).expanduser(), results)
        print(f"\nwritten to {FLAGS.out}")


if __name__ == "__main__":
    define()
    cli_main.run(main)
