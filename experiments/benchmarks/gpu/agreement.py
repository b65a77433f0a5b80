"""Does every function of both libraries run on this device, and agree with float64?

The expected numbers are computed on the CPU with NumPy in float64 from the definitions
(`cases.py` and `cases_*.py`). The cases of a group are one compiled program; where that fails,
they run one by one, so that an error names its function.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from experiments.benchmarks.gpu import (
    cases,
    cases_correlation,
    cases_optflow,
    cases_penalties,
)
from experiments.benchmarks.gpu.cases import TOLERANCES, Case
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.runner import one_line
from experiments.benchmarks.gpu.setup import Setup

_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def groups() -> dict[str, list[Case]]:
    """Every case, in groups that are compiled together; the most valuable first."""
    solvers = {
        f"optflow {name}": cases_optflow.solver_cases(name) for name in cases_optflow.SOLVERS
    }
    first = solvers.pop("optflow auto")
    return {
        "metrics": cases.metric_cases(),
        "penalties": cases_penalties.penalty_cases(),
        "correlation": cases_correlation.correlation_cases(),
        "optflow auto": first,
        "kernels": cases_optflow.kernel_cases(),
        **solvers,
    }


def measure(setup: Setup, clock: Clock, results: dict[str, Any]) -> None:
    """Errors of every function, in float32 for all groups first, then in bfloat16."""
    results["tolerances"] = TOLERANCES
    found = groups()
    seconds: dict[str, float] = {}
    for dtype in TOLERANCES:
        for name, members in found.items():
            # In another dtype a group takes as long again; of a new one that is not known.
            expected = seconds.get(name, max(seconds.values(), default=0.0) / 2)
            if not clock.fits(expected):
                results.setdefault("left_out", []).append(f"{name} ({dtype})")
                continue
            start = time.monotonic()
            results.setdefault("functions", {}).setdefault(dtype, {}).update(check(members, dtype))
            seconds[name] = time.monotonic() - start
            _count(results)
            setup.notice(
                f"  {name} ({dtype}): {results['passed']} of {results['checked']} functions agree "
                f"so far; {seconds[name]:.1f} s"
            )


def check(members: list[Case], dtype: str) -> dict[str, dict[str, Any]]:
    """The greatest relative error of each case and whether it is within its tolerance."""
    rounded = [[a.astype(_DTYPES[dtype]) for a in case.arguments] for case in members]
    together = [i for i, case in enumerate(members) if case.compiled]
    outputs: dict[int, Any] = {}
    try:
        call = jax.jit(lambda inputs: [members[i].call(*inputs[i]) for i in together])
        arguments = {i: [jnp.asarray(a) for a in rounded[i]] for i in together}
        outputs = dict(zip(together, jax.device_get(call(arguments)), strict=True))
    except Exception:  # One by one tells which.
        outputs = {}
    rows = {}
    for i, case in enumerate(members):
        tolerance = max(case.tolerance, TOLERANCES[dtype])
        row: dict[str, Any] = {"tolerance": tolerance}
        try:
            arrays = [jnp.asarray(a) for a in rounded[i]]
            call = jax.jit(case.call) if case.compiled else case.call
            got = outputs[i] if i in outputs else jax.device_get(call(*arrays))
            exact = case.exact(*(a.astype(np.float64) for a in rounded[i]))
            row["error"] = error(got, exact)
        except Exception as raised:
            row |= {"error": None, "raised": one_line(raised)}
        row["passed"] = row["error"] is not None and row["error"] <= tolerance
        rows[case.name] = row
    return rows


def error(got: Any, exact: Any) -> float:
    """The greatest difference of any leaf, relative to the largest number of that leaf.

    Raises:
      ValueError: the trees or shapes differ.

    Example:
      >>> error([np.array([1.0, 2.1])], [np.array([1.0, 2.0])]).__round__(3)
      0.05
    """
    leaves, structure = jax.tree.flatten(got)
    expected, other = jax.tree.flatten(exact)
    if structure != other:
        raise ValueError(f"got a tree {structure}; expected {other}")
    worst = 0.0
    for a, b in zip(leaves, expected, strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"got shape {a.shape}; expected {b.shape}")
        difference = np.max(np.abs(a - b))
        scale = np.max(np.abs(b))
        relative = difference / scale if scale else difference
        worst = max(worst, float(relative) if np.isfinite(relative) else np.inf)
    return worst


def rows(results: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines for the summary: how many agree, the largest error, those that do not."""
    lines = []
    for dtype, functions in results.get("functions", {}).items():
        known = {name: row["error"] for name, row in functions.items() if row["error"] is not None}
        good = sum(row["passed"] for row in functions.values())
        worst = max(known, key=lambda name: known[name], default=None)
        detail = f"; the largest error is {known[worst]:.1e}, {worst}" if worst else ""
        lines.append(
            (f"functions that agree with float64, {dtype}", f"{good} of {len(functions)}{detail}")
        )
        for name, row in functions.items():
            if not row["passed"]:
                value = row.get("raised") or f"error {row['error']:.1e}"
                lines.append((f"FAIL {name}, {dtype}", f"{value}; tolerance {row['tolerance']:g}"))
    return lines


def _count(results: dict[str, Any]) -> None:
    checked = [row for rows in results["functions"].values() for row in rows.values()]
    results["checked"] = len(checked)
    results["passed"] = sum(row["passed"] for row in checked)
