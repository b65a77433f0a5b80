"""Images per second of the ResNet's training step, and its share of the roofline."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.gpu import torch_step
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.peaks import peaks_of, roofline
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.summary import spread
from experiments.benchmarks.gpu.timed import first_calls, turns_within
from experiments.benchmarks.gpu.trainings import Training, config
from experiments.benchmarks.timing import quartiles

# Share of the part's time for the turns of all steps.
TURNS = 0.1


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """The step at every batch size and precision, in turns; then PyTorch's, where it is."""
    seconds = clock.left
    sizes, backend = setup.sizes, jax.default_backend()
    results["depth"], results["dataset"] = sizes.depth, setup.dataset.name
    trainings = {
        f"batch {batch}, {precision}": Training(
            config(setup, "l2", batch, precision), setup.dataset
        )
        for precision, batch in itertools.product(sizes.precisions, sizes.batches)
    }
    compile_seconds = first_calls(dict(trainings), clock, sizes.workers, results)
    trainings = {name: trainings[name] for name in compile_seconds}
    first = f"batch {sizes.batches[0]}, {sizes.precisions[0]}"
    setup.kept["l2"] = trainings.get(first)
    peaks = peaks_of(jax.devices()[0].device_kind, backend)
    results["peaks"] = peaks._asdict() if peaks else None
    times = turns_within(dict(trainings), TURNS * seconds, sizes.turns) if trainings else {}
    results["steps"] = {}
    for name, training in trainings.items():
        step = times[name] / training.steps
        cost = training.cost()
        row: dict[str, Any] = {
            "images_per_second": quartiles(training.images / times[name]),
            "step_milliseconds": quartiles(1e3 * step),
            "steps_per_dispatch": training.steps,
            "compile_seconds": compile_seconds[name],
            **cost,
        }
        precision = name.rpartition(" ")[2]
        median = float(np.median(step))
        row |= roofline(cost["flop"], cost["bytes"], median, precision, peaks)
        results["steps"][name] = row
        if name == first:
            setup.kept["images_per_second"] = row["images_per_second"]["median"]
        setup.notice(f"  {name}: {spread(row['images_per_second'], '.0f', 'images/s')}")
    torch_step.measure(setup, clock, results)


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    lines = []
    for name, row in results.get("steps", {}).items():
        share = row["share_of_roofline"]
        roof = row["peaks"] if share is None else f"{share:.1%} of the roofline ({row['bound']})"
        rate = spread(row["images_per_second"], ".0f", "images/s")
        lines.append((f"ResNet-{results['depth']}, {name}", f"{rate}, {roof}"))
    torch = results.get("torch", {})
    if "why_not" in torch:
        lines.append(("PyTorch", torch["why_not"]))
    for name, row in torch.get("steps", {}).items():
        lines.append((f"PyTorch, {name}", spread(row["images_per_second"], ".0f", "images/s")))
    return lines
