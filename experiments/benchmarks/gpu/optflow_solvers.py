"""OptFlow's solvers by filter size and batch, over cuSOLVER's sparse QR and the memory floor.

The solver "sparse_direct" is the paper's Newton system by `jax.experimental.sparse.linalg.spsolve`:
cuSOLVER's sparse QR on a GPU, SciPy on a CPU.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.peaks import UNKNOWN, peaks_of
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.summary import spread
from experiments.benchmarks.gpu.timed import first_calls, turns_within
from experiments.benchmarks.optflow import ours
from experiments.benchmarks.timing import quartiles

SPARSE = "sparse_direct"
SOLVERS = ("auto", "cg", "cholesky", SPARSE, "sparse_cg")
# The sparse methods take minutes for filters with more pixels.
SPARSE_PIXELS = 1024
SCALE = 0.05  # of the weights, about that of a freshly initialised layer


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """Cost and gradient by every solver, set after set."""
    peaks = peaks_of(jax.devices()[0].device_kind, jax.default_backend())
    results |= {"peaks": peaks.source if peaks else UNKNOWN, "scale": SCALE, "sets": {}}
    for done, shape in enumerate(setup.sizes.filters):
        name = f"{shape[0]} of {'x'.join(map(str, shape[1:]))}"
        if not clock.fits():
            results.setdefault("left_out", []).append(name)
            continue
        own = clock.part(clock.left / (len(setup.sizes.filters) - done))
        floor = peaks and memory_floor(shape, peaks.bandwidth)
        results["sets"][name] = row = _set(setup, own, shape, floor, name, results)
        shown = (f"{s} {v['median']:.3g}" for s, v in row["milliseconds"].items())
        setup.notice(f"  {name}, ms: {', '.join(shown)}")


def memory_floor(shape: tuple[int, ...], bandwidth: float) -> float:
    """Milliseconds for reading float32 filters once and writing gradient and cost once."""
    moved = 4 * (2 * int(np.prod(shape)) + shape[0])
    return 1e3 * moved / bandwidth


def _set(
    setup: Setup,
    clock: Clock,
    shape: tuple[int, ...],
    floor: float | None,
    name: str,
    results: dict[str, Any],
) -> dict[str, Any]:
    filters = SCALE * jax.random.normal(jax.random.key(0), shape)
    large = int(np.prod(shape[1:])) > SPARSE_PIXELS
    solvers = [s for s in SOLVERS if not (large and s.startswith("sparse"))]
    calls = {}
    for solver in solvers:
        call = ours(solver)
        calls[solver] = lambda call=call: call(filters)
    own: dict[str, Any] = {}
    seconds = clock.left
    made = first_calls(calls, clock, setup.sizes.workers, own)
    for solver in own.get("left_out", []):
        results.setdefault("left_out", []).append(f"{solver}, {name}")
    times = {}
    # One solver after another: some take a thousand times as long as others.
    for solver in made:
        budget = seconds / (4 * len(made))
        times |= turns_within({solver: calls[solver]}, budget, setup.sizes.turns)
    medians = {solver: float(np.median(t)) for solver, t in times.items()}
    sparse = medians.get(SPARSE)
    return {
        "milliseconds": {s: quartiles(1e3 * t) for s, t in times.items()},
        "compile_seconds": made,
        "fastest": min(medians, key=lambda solver: medians[solver], default=None),
        "over_sparse_direct": {s: t / sparse for s, t in medians.items()} if sparse else {},
        "memory_floor_milliseconds": floor,
        "over_memory_floor": {s: 1e3 * t / floor for s, t in medians.items()} if floor else {},
        "left_out": {s: "takes minutes" for s in SOLVERS if s not in solvers},
    }


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary."""
    lines = []
    for name, row in results.get("sets", {}).items():
        floor = row["memory_floor_milliseconds"]
        shown = [f"{s} {spread(v, '.3g')}" for s, v in row["milliseconds"].items()]
        ratio = row["over_sparse_direct"].get("auto")
        shown += [f"auto / {SPARSE} {ratio:.3g}"] if ratio else []
        shown += [f"memory floor {floor:.2g}"] if floor else []
        lines.append((f"{name}, cost and gradient, ms", "; ".join(shown)))
    return lines
