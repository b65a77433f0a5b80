"""Everything that only a GPU can tell, the most valuable first, inside a budget of time.

    python -m experiments.benchmarks.gpu_suite --out=DIR --budget_seconds=540

Seven parts: agreement of both libraries with float64; the ResNet's training step, its share of the
roofline, and PyTorch's; the overhead of each metric; the Sobolev methods by length, with the
thresholds that they suggest; OptFlow's solvers; trials in turn, vmapped and in processes; and, with
the time that is left, real paired training into DIR/training. Each leaves DIR/PART.json with
device, versions and commit as soon as it ends; suite.json has them all, summary.md a table.

A part that fails is recorded with its error, and one that no time is left for is "not started".
Without a GPU the suite runs on the CPU with smaller sizes and a smaller budget.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from experiments import data
from experiments.benchmarks.gpu import (
    agreement,
    optflow_solvers,
    overhead,
    paired,
    sobolev,
    training_step,
    trials,
)
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.runner import Part, run
from experiments.benchmarks.gpu.setup import FULL, REDUCED, Setup, Sizes
from experiments.benchmarks.gpu.summary import markdown
from experiments.cli import lists
from experiments.cli import main as command
from experiments.system import environment
from experiments.system.files import write_json, write_text
from experiments.system.output import say

PARTS = (
    Part("agreement", "every library function against float64", agreement.measure, agreement.rows),
    Part("training_step", "the ResNet's step", training_step.measure, training_step.rows),
    Part("overhead", "what each metric adds to the step", overhead.measure, overhead.rows),
    Part("sobolev", "the Sobolev methods by length", sobolev.measure, sobolev.rows),
    Part("optflow", "OptFlow's solvers", optflow_solvers.measure, optflow_solvers.rows),
    Part("trials", "several trials at once", trials.measure, trials.rows),
    Part("paired", "real paired training", paired.measure, paired.rows),
)
LEAST_SECONDS, MOST_SECONDS = 1.0, 86_400.0


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    where: dict[str, Any] = {"flag_values": values, "module_name": "benchmark"}
    flags.DEFINE_string("out", "gpu_suite", "Folder for the results.", **where)
    flags.DEFINE_float(
        "budget_seconds", None,
        f"Time for all parts. Default: {FULL.seconds:g}, or {REDUCED.seconds:g} on a CPU.", **where,
    )  # fmt: skip
    names = [part.name for part in PARTS]
    flags.DEFINE_list("parts", names, f"Accepted: {', '.join(names)}.", **where)
    flags.DEFINE_string(
        "data_dir", data.DEFAULT_DATA_DIR,
        "Folder of the prepared datasets; CIFAR-10 is taken if it is there, else scanned digits.",
        **where,
    )  # fmt: skip


def main(values: flags.FlagValues) -> dict[str, Any]:
    """Measures, prints and returns what the flags ask for."""
    sizes = sizes_for(jax.default_backend())
    given = values.budget_seconds
    seconds = sizes.seconds if given is None else given
    lists.within("budget_seconds", seconds, LEAST_SECONDS, MOST_SECONDS)
    chosen = lists.names("parts", values.parts, [part.name for part in PARTS])
    out = command.out_folder(values)
    clock = Clock(seconds)
    facts = {
        "environment": environment.describe(),
        "sizes": sizes.name,
        "budget_seconds": seconds,
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }
    say(f"{facts['environment']['device']}; sizes: {sizes.name}; {seconds:g} s")
    with _compiled_programs() as cache:
        dataset = data.load("auto", values.data_dir, preferred="cifar10", notice=lambda line: None)
        say(f"images: {dataset.name}")
        setup = Setup(sizes, dataset, values.data_dir, out, cache)
        parts = [part for part in PARTS if part.name in chosen]
        records = run(parts, setup, clock, facts)
    found = {name: _without(record, facts) for name, record in records.items()}
    results = {**facts, "seconds": seconds - clock.left, "parts": found}
    write_json(out / "suite.json", results)
    where = f"{facts['environment']['device']}, commit {facts['environment']['commit']}"
    heading = f"{where}, sizes: {sizes.name}, {results['seconds']:.0f} of {seconds:g} s"
    table = markdown(parts, records, heading)
    write_text(out / "summary.md", table + "\n")
    say(f"\n{table}\n\nwritten to {out}")
    return results


def sizes_for(backend: str) -> Sizes:
    """The sizes for a backend."""
    return REDUCED if backend == "cpu" else FULL


@contextlib.contextmanager
def _compiled_programs() -> Iterator[str]:
    """A folder that keeps compiled programs for later parts and their processes.

    It is that of JAX_COMPILATION_CACHE_DIR where that is set, so that a second run of the suite
    need not compile.
    """
    if jax.config.jax_compilation_cache_dir:
        yield jax.config.jax_compilation_cache_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
        try:
            yield folder
        finally:
            jax.config.update("jax_compilation_cache_dir", None)


def _without(record: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in facts}


if __name__ == "__main__":
    command.run(main, define)
