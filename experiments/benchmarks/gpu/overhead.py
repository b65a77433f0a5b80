"""What each metric adds to the ResNet's training step, as the engine runs it."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax

import channel_grad
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.summary import spread
from experiments.benchmarks.gpu.timed import first_calls, repeated, turns_within
from experiments.benchmarks.gpu.trainings import Training, config
from experiments.benchmarks.timing import quartiles
from experiments.training.networks import networks

# The paper's first; a metric that is new in the library comes last.
FIRST = ("sobolev", "reweighted_l2", "laplacian")
# Shares of the part's time for the turns of the metrics alone, and of the steps.
ALONE, STEPS = 0.1, 0.3


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """Steps with each metric and with l2 in turns, then each metric by itself."""
    seconds = clock.left
    batch = setup.sizes.batches[0]
    baseline = setup.kept.get("l2") or Training(config(setup, "l2", batch), setup.dataset)
    names = [*FIRST, *(n for n in channel_grad.METRICS if n != "l2" and n not in FIRST)]
    # The control: a difference between two trials of one program is noise.
    calls = {"l2": baseline, "l2 again": baseline.again(1)}
    calls |= {name: Training(config(setup, name, batch), setup.dataset) for name in names}
    made = first_calls(dict(calls), clock, setup.sizes.workers, results)
    results |= {"batch": batch, "compile_seconds": made}
    if "l2" in made and len(made) > 1:
        times = turns_within(
            {name: calls[name] for name in made}, STEPS * seconds, setup.sizes.turns
        )
        results["step_milliseconds"] = {
            name: quartiles(1e3 * t / baseline.steps) for name, t in times.items()
        }
        results["overhead_percent"] = {
            name: quartiles(100 * (t / times["l2"] - 1))
            for name, t in times.items()
            if name != "l2"
        }
        for name, value in results["overhead_percent"].items():
            setup.notice(f"  {name}: {spread(value, '+.2f', '% of a step')}")
    if "l2" in made and clock.fits():
        step = results.get("step_milliseconds", {}).get("l2", {}).get("median")
        results["alone"] = _alone(setup, clock, baseline, names, ALONE * seconds, step, results)


def _alone(
    setup: Setup,
    clock: Clock,
    baseline: Training,
    names: list[str],
    seconds: float,
    step: float | None,
    results: dict[str, Any],
) -> dict[str, Any]:
    """Each metric by itself on a gradient of the network."""
    (network,) = networks(baseline().state).values()
    gradient = jax.tree.map(jax.numpy.copy, network.params)
    times, calls = setup.sizes.repeats, {}
    for name in names:
        metric = channel_grad.scale_by_metric(channel_grad.METRICS[name]())
        update = repeated(lambda g, metric=metric: metric.update(g, optax.EmptyState())[0], times)
        calls[f"{name} alone"] = lambda update=update: update(gradient)
    made = first_calls(calls, clock, setup.sizes.workers, results)
    if not made:
        return {}
    found = turns_within({name: calls[name] for name in made}, seconds, setup.sizes.turns)
    return {
        name: {
            "milliseconds": quartiles(1e3 * t / times),
            "percent_of_step": None if step is None else float(np.median(1e5 * t / times / step)),
        }
        for name, t in found.items()
    }


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    lines = [
        (f"{name}, batch {results['batch']}: step with / without - 1", spread(value, "+.2f", "%"))
        for name, value in results.get("overhead_percent", {}).items()
    ]
    for name, row in results.get("alone", {}).items():
        share = row["percent_of_step"]
        text = "" if share is None else f", {share:.2f} % of a step"
        lines.append((name, spread(row["milliseconds"], ".3g", "ms") + text))
    return lines
