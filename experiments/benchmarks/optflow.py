"""How fast is the OptFlow regularizer? Cost and gradient by every solver, beside other ways.

    python -m experiments.benchmarks.optflow --out=results.json

One run: for each set of filters and each scale of the weights, every method in turns; medians of
the repetitions, and for the solvers of `optflow_jax` the ratio to each peer. The errors are against
SciPy in float64, so that "at equal accuracy" can be seen. A method that takes longer than --budget
seconds for a set is run once, or on a part of the filters (then the time is scaled up and marked).
"""

from __future__ import annotations

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import flags

import optflow_jax
from experiments.benchmarks.optflow_peers import JAX_PEERS, PEERS, scipy_per_filter
from experiments.cli import main as cli_main
from experiments.system import environment
from experiments.system.errors import UserError
from experiments.system.files import write_json
from experiments.training.config import at_least

FLAGS = flags.FLAGS
SOLVERS = ("auto", "cg", "cholesky", "sparse_cg", "sparse_direct")
ONE_BY_ONE = ("scipy as in the paper", "scipy spsolve per filter")
# (filters, T, H, W); the last one is too large for a dense Hessian of its whole.
SETS = {
    "16 of 7x7x7": (16, 7, 7, 7),
    "64 of 7x7x7": (64, 7, 7, 7),
    "96 of 4x11x11": (96, 4, 11, 11),
    "64 of 5x9x9": (64, 5, 9, 9),
    "256 of 3x3x3": (256, 3, 3, 3),
    "16 of 16x16x16": (16, 16, 16, 16),
}
# Above so many pixels a filter, a method that is left out, and why.
LEFT_OUT = {
    "jax dense cholesky": (1024, "a dense Hessian of 8192 x 8192 for each filter"),
    "lineax cholesky": (1024, "a dense Hessian of 8192 x 8192 for each filter"),
    "scipy block-diagonal": (1024, "takes minutes"),
    "cholmod block-diagonal": (1024, "takes minutes"),
    "sparse_direct": (1024, "takes minutes"),
}
# Of filters this large, SciPy solves so many; the time is scaled to the set.
LARGE, PART = 1024, 1


def define() -> None:
    flags.DEFINE_string("out", None, "JSON file for the results, with device and versions.")
    flags.DEFINE_list("sets", list(SETS), f"Accepted: {', '.join(SETS)}.")
    flags.DEFINE_list("scales", ["0.05", "1"], "Standard deviations of the weights.")
    flags.DEFINE_integer("repetitions", 15, "Turns for each method at most.")
    flags.DEFINE_float("budget", 4.0, "Seconds for one method and set; at least one turn is run.")
    flags.DEFINE_bool("quick", False, "The first two sets, with few turns.")


def ours(solver: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Cost and gradient of a batch by one solver of `optflow_jax`, one compiled program."""

    def cost_and_gradient(filters):
        cost, pull_back = jax.vjp(functools.partial(optflow_jax.cost, solver=solver), filters)
        return cost, pull_back(jax.numpy.ones_like(cost))[0]

    return jax.jit(cost_and_gradient)


def errors(result, reference) -> dict[str, float]:
    """Greatest relative error over the filters, of the cost and (in norm) of the gradient."""
    cost, gradient = (np.asarray(x, np.float64) for x in result)
    exact, slope = reference
    count = len(cost)
    difference = np.linalg.norm((gradient - slope[:count]).reshape(count, -1), axis=1)
    return {
        "cost_error": float(np.max(np.abs(cost - exact[:count]) / exact[:count])),
        "gradient_error": float(
            np.max(difference / np.linalg.norm(slope[:count].reshape(count, -1), axis=1))
        ),
    }


def bench_set(shape: tuple[int, ...], scale: float, repetitions: int, budget: float) -> dict:
    """Milliseconds and errors of every method for one set of filters."""
    filters = (scale * np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    pixels = int(np.prod(shape[1:]))
    part = PART if pixels > LARGE else len(filters)
    reference = scipy_per_filter(filters[:part])
    on_device = jax.numpy.asarray(filters)
    methods = {s: (ours(s), on_device) for s in SOLVERS}
    methods |= {name: (peer, on_device) for name, peer in PEERS.items()}
    for name in ONE_BY_ONE:
        methods[name] = (PEERS[name], filters[:part])

    rows: dict[str, dict[str, Any]] = {}
    turns = {}
    for name, (call, argument) in methods.items():
        limit, why = LEFT_OUT.get(name, (pixels, ""))
        if pixels > limit:
            rows[name] = {"left_out": why}
            continue
        result = jax.block_until_ready(call(argument))  # compiles
        start = time.perf_counter()
        jax.block_until_ready(call(argument))
        once = time.perf_counter() - start
        rows[name] = errors([np.asarray(x)[:part] for x in result], reference)
        rows[name]["scaled_from"] = part if len(argument) < len(filters) else None
        turns[name] = int(np.clip(budget / once, 1, repetitions))
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(max(turns.values())):
        for name, count in turns.items():
            if turn < count:
                call, argument = methods[name]
                start = time.perf_counter()
                jax.block_until_ready(call(argument))
                seconds[name].append(time.perf_counter() - start)
    for name, values in seconds.items():
        scaling = len(filters) / len(methods[name][1])
        low, median, high = np.percentile(1e3 * scaling * np.array(values), [25, 50, 75])
        rows[name] |= {"milliseconds": median, "low": low, "high": high, "turns": len(values)}
    iterations = np.asarray(optflow_jax.flow(on_device, solver="cg").iterations)
    return {"methods": rows, "cg_iterations": [int(iterations.min()), int(iterations.max())]}


def ratios(methods: dict[str, dict]) -> dict[str, float]:
    """What "auto" is faster than, as peer / auto, and the best JAX peer of equal accuracy."""
    auto = methods["auto"]["milliseconds"]
    found = {n: methods[n]["milliseconds"] / auto for n in PEERS if "milliseconds" in methods[n]}
    accurate = [n for n in JAX_PEERS if n in found and methods[n]["gradient_error"] <= 1e-5]
    if accurate:
        found["best jax peer"] = min(found[n] for n in accurate)
    return found


def table(name: str, scale: float, result: dict) -> str:
    """One set as text."""
    low, high = result["cg_iterations"]
    lines = [
        f"{name}, weights of scale {scale:g} (cg: {low} to {high} iterations)",
        f"  {'method':<26}{'ms':>10}  {'(quartiles)':<20}{'peer / auto':>12}"
        f"{'cost error':>12}{'gradient':>10}",
    ]
    for method, row in result["methods"].items():
        if "left_out" in row:
            lines.append(f"  {method:<26}{'-':>10}  left out: {row['left_out']}")
            continue
        ratio = result["ratios"].get(method)
        spread = f"({row['low']:.3g} - {row['high']:.3g})"
        mark = f"  scaled from {row['scaled_from']} filter" if row["scaled_from"] else ""
        lines.append(
            f"  {method:<26}{row['milliseconds']:>10.3g}  {spread:<20}"
            f"{'' if ratio is None else f'{ratio:.1f}':>12}{row['cost_error']:>12.1e}"
            f"{row['gradient_error']:>10.1e}{mark}"
        )
    return "\n".join(lines)


def main() -> None:
    for name in FLAGS.sets:
        if name not in SETS:
            raise UserError(f"--sets: got {name!r}; accepted are {', '.join(SETS)}")
    at_least("repetitions", FLAGS.repetitions, 1)
    try:
        scales = [float(s) for s in FLAGS.scales]
    except ValueError as error:
        raise UserError(f"--scales: got {FLAGS.scales}; accepted are numbers") from error
    sets, repetitions = FLAGS.sets, FLAGS.repetitions
    if FLAGS.quick:
        sets, repetitions = sets[:2], min(repetitions, 5)
    results = {"environment": environment.describe(), "sets": {}}
    print(results["environment"]["device"], flush=True)
    for name in sets:
        for scale in scales:
            result = bench_set(SETS[name], scale, repetitions, FLAGS.budget)
            result["ratios"] = ratios(result["methods"])
            results["sets"][f"{name}, scale {scale:g}"] = result
            print("\n" + table(name, scale, result), flush=True)
            if FLAGS.out:
                write_json(pathlib.Path(FLAGS.out).expanduser(), results)


if __name__ == "__main__":
    define()
    cli_main.run(main)
