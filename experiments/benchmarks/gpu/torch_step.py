"""PyTorch's training step of the same network: eager, channels_last, and compiled."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import time
from typing import Any

import jax

from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.runner import one_line
from experiments.benchmarks.gpu.setup import Setup
from experiments.benchmarks.gpu.summary import spread
from experiments.benchmarks.gpu.timed import turns_within
from experiments.benchmarks.timing import quartiles

# torch.compile of ResNet-56 takes a minute or more.
COMPILE_SECONDS = 60.0
# Name -> (channels_last, compiled), the cheapest first.
VARIANTS = {
    "eager": (False, False),
    "eager, channels_last": (True, False),
    "compiled, channels_last": (True, True),
}
STEPS = 20  # of one timed call


def why_not() -> str | None:
    """Why PyTorch is not measured here, or None where it is."""
    if jax.default_backend() == "cpu":
        return "not measured on a CPU"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    import torch

    return None if torch.cuda.is_available() else "torch has no CUDA device"


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """Images per second of every variant, in turns, as far as the time goes."""
    reason = why_not()
    if reason:
        results["torch"] = {"why_not": reason}
        return
    import torch

    from experiments.benchmarks.gpu.torch_resnet import Step

    found: dict[str, Any] = {"version": torch.__version__, "augmentation": "none", "steps": {}}
    results["torch"] = found
    sizes = setup.sizes
    for variant, (channels_last, compiled) in VARIANTS.items():
        calls, batches = {}, {}
        for precision, batch in itertools.product(sizes.precisions, sizes.batches):
            name = f"{variant}, batch {batch}, {precision}"
            if not clock.fits(COMPILE_SECONDS if compiled else 5.0):
                results.setdefault("left_out", []).append(f"torch {name}")
                continue
            start = time.monotonic()
            try:
                step = Step(sizes.depth, batch, precision, channels_last, compiled)
                step.run(3)
            except Exception as error:  # A compiler that is missing ends one variant.
                found.setdefault("errors", {})[name] = one_line(error)
                continue
            calls[name], batches[name] = functools.partial(step.run, STEPS), batch
            found.setdefault("first_seconds", {})[name] = time.monotonic() - start
        if calls:
            times = turns_within(calls, 0.05 * max(clock.left, 10.0), sizes.turns)
            for name, seconds in times.items():
                rate = quartiles(STEPS * batches[name] / seconds)
                found["steps"][name] = {"images_per_second": rate}
                setup.notice(f"  torch {name}: {spread(rate, '.0f', 'images/s')}")
