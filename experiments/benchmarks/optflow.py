"""How fast the OptFlow regularizer is: cost and gradient by every solver, beside other ways.

    python -m experiments.benchmarks.optflow --out=results.json

For each set of filters and each scale of the weights all methods run in turns. Printed are medians
and the ratio of each peer to the solver "auto". The errors are against SciPy in float64, so that
methods are compared at equal accuracy. A method that takes longer than --budget seconds for a set
runs once. SciPy solves a part of the sets of large filters; its time is scaled up and marked.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

import optflow_jax
from experiments.benchmarks.optflow_peers import JAX_PEERS, PEERS, scipy_per_filter
from experiments.cli import lists
from experiments.cli import main as command
from experiments.system import environment
from experiments.system.files import write_json

# Those of optflow_jax; the first is what the peers are compared with.
SOLVERS = ("auto", "cg", "cholesky", "sparse_cg", "sparse_direct")
ONE_BY_ONE = ("scipy as in the paper", "scipy spsolve per filter")
# (filters, T, H, W); filters of the last one are too large for a dense Hessian.
SETS = {
    "16 of 7x7x7": (16, 7, 7, 7),
    "64 of 7x7x7": (64, 7, 7, 7),
    "96 of 4x11x11": (96, 4, 11, 11),
    "64 of 5x9x9": (64, 5, 9, 9),
    "256 of 3x3x3": (256, 3, 3, 3),
    "16 of 16x16x16": (16, 16, 16, 16),
}
# Method -> (the most pixels of a filter that it is run on, why not on more).
LEFT_OUT = {
    "jax dense cholesky": (1024, "a dense Hessian of 8192 x 8192 for each filter"),
    "lineax cholesky": (1024, "a dense Hessian of 8192 x 8192 for each filter"),
    "scipy block-diagonal": (1024, "takes minutes"),
    "cholmod block-diagonal": (1024, "takes minutes"),
    "sparse_direct": (1024, "takes minutes"),
}
# Of filters with more pixels than LARGE SciPy solves PART; the time is scaled to the set.
LARGE, PART = 1024, 1
# Where cost and gradient, which grow with the square of the scale, stay far inside float32.
LEAST_SCALE, MOST_SCALE = 1e-6, 1e6
MOST_REPETITIONS, MOST_SECONDS = 100_000, 86_400.0


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "benchmark"}
    flags.DEFINE_list("sets", list(SETS), f"Accepted: {', '.join(SETS)}.", **where)
    flags.DEFINE_list("scales", ["0.05", "1"], "Standard deviations of the weights.", **where)
    flags.DEFINE_integer("repetitions", 15, "The most turns for each method.", **where)
    flags.DEFINE_float(
        "budget", 4.0, "Seconds for one method and set; at least one turn is run.", **where
    )
    flags.DEFINE_bool("quick", False, "The first two sets, with few turns.", **where)
    flags.DEFINE_string(
        "out", None, "JSON file for the results, with device, versions and commit.", **where
    )


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Measures, prints and returns what the flags ask for."""
    sets = lists.names("sets", values.sets, SETS)
    scales = lists.numbers("scales", values.scales, LEAST_SCALE, MOST_SCALE)
    lists.within("repetitions", values.repetitions, 1, MOST_REPETITIONS)
    lists.within("budget", values.budget, 1e-6, MOST_SECONDS)
    out = command.out_file(values)
    repetitions = values.repetitions
    if values.quick:
        sets, repetitions = sets[:2], min(repetitions, 5)
    results: dict[str, Any] = {"environment": environment.describe(), "sets": {}}
    print(results["environment"]["device"], flush=True)
    for name in sets:
        for scale in scales:
            result = bench_set(SETS[name], scale, repetitions, values.budget)
            result["ratios"] = ratios(result["methods"])
            results["sets"][f"{name}, scale {scale:g}"] = result
            print("\n" + table(name, scale, result), flush=True)
            if out:
                write_json(out, results)
    if out:
        print(f"\nwritten to {out}")
    return results


def ours(solver: str) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Cost and gradient of a batch by one solver of `optflow_jax`, one compiled program."""

    def cost_and_gradient(filters):
        cost, pull_back = jax.vjp(functools.partial(optflow_jax.cost, solver=solver), filters)
        return cost, pull_back(jnp.ones_like(cost))[0]

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


def bench_set(
    shape: tuple[int, ...], scale: float, repetitions: int, budget: float
) -> dict[str, Any]:
    """Milliseconds and errors of every method for one set of filters.

    Args:
      shape: (filters, T, H, W).
      scale: standard deviation of the weights.
      repetitions: the most turns of a method.
      budget: seconds for the turns of a method; one turn is always run.
    """
    filters = (scale * np.random.default_rng(0).normal(size=shape)).astype(np.float32)
    pixels = int(np.prod(shape[1:]))
    part = PART if pixels > LARGE else len(filters)
    reference = scipy_per_filter(filters[:part])
    on_device = jnp.asarray(filters)
    methods: dict[str, tuple[Callable, Any]] = {s: (ours(s), on_device) for s in SOLVERS}
    methods |= {name: (peer, on_device) for name, peer in PEERS.items()}
    methods |= {name: (PEERS[name], filters[:part]) for name in ONE_BY_ONE}

    rows: dict[str, dict[str, Any]] = {}
    calls, turns = {}, {}
    for name, (method, argument) in methods.items():
        limit, why = LEFT_OUT.get(name, (pixels, ""))
        if pixels > limit:
            rows[name] = {"left_out": why}
            continue
        calls[name] = functools.partial(method, argument)
        result = jax.block_until_ready(calls[name]())  # compiles
        once = _seconds(calls[name])
        rows[name] = errors([np.asarray(x)[:part] for x in result], reference)
        rows[name]["scaled_from"] = part if len(argument) < len(filters) else None
        turns[name] = int(np.clip(budget / once, 1, repetitions))
    for name, seconds in _in_turns(calls, turns).items():
        scaling = len(filters) / len(methods[name][1])
        low, median, high = np.percentile(1e3 * scaling * np.array(seconds), [25, 50, 75])
        rows[name] |= {"milliseconds": median, "low": low, "high": high, "turns": len(seconds)}
    iterations = np.asarray(optflow_jax.flow(on_device, solver="cg").iterations)
    return {"methods": rows, "cg_iterations": [int(iterations.min()), int(iterations.max())]}


def _in_turns(calls: dict[str, Callable[[], Any]], turns: dict[str, int]) -> dict[str, list[float]]:
    """Seconds of each call, in as many turns as each has."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(max(turns.values())):
        for name, call in calls.items():
            if turn < turns[name]:
                seconds[name].append(_seconds(call))
    return seconds


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def ratios(methods: dict[str, dict]) -> dict[str, float]:
    """Time of each peer over that of "auto", and of the fastest JAX peer of equal accuracy."""
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


if __name__ == "__main__":
    command.run(main, define)
