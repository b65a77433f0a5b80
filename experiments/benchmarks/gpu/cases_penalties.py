"""The agreement cases of `optflow_jax.penalties`: its numbers in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks.gpu.cases import Case
from optflow_jax import penalties


def penalty_cases() -> list[Case]:
    """The penalties and their proximal operators."""
    x = np.random.default_rng(4).normal(size=(6, 8))
    step, groups = 0.5, (0,)

    def soft(x: np.ndarray, by: float) -> np.ndarray:
        return np.sign(x) * np.maximum(np.abs(x) - by, 0)

    def differences(x: np.ndarray) -> np.ndarray:
        rows, columns = np.diff(x, axis=0), np.diff(x, axis=1)
        return np.stack([np.pad(rows, ((0, 1), (0, 0))), np.pad(columns, ((0, 0), (0, 1)))])

    def adjoint(p: np.ndarray) -> np.ndarray:
        rows, columns = p[0, :-1], p[1, :, :-1]
        down = np.pad(rows, ((1, 0), (0, 0))) - np.pad(rows, ((0, 1), (0, 0)))
        return down + np.pad(columns, ((0, 0), (1, 0))) - np.pad(columns, ((0, 0), (0, 1)))

    def total_variation(x: np.ndarray) -> np.floating:
        return np.sum(np.linalg.norm(differences(x), axis=0))

    def denoised(v: np.ndarray) -> np.ndarray:
        p = np.zeros((2, *v.shape))
        for _ in range(5000):  # projected gradient of the dual
            p = p + differences(v - step * adjoint(p)) / (8 * step)
            p = p / np.maximum(np.linalg.norm(p, axis=0), 1)
        return v - step * adjoint(p)

    def shrunk(x: np.ndarray) -> np.ndarray:
        return x * np.maximum(1 - step / np.linalg.norm(x, axis=0), 0)

    def huber(x: np.ndarray) -> np.floating:
        size = np.abs(x)
        return np.sum(np.where(size <= 1, x * x / 2, size - 0.5))

    def prox_huber(x: np.ndarray) -> np.ndarray:
        return np.where(np.abs(x) <= 1 + step, x / (1 + step), x - step * np.sign(x))

    expected: dict[str, tuple[Any, Any]] = {
        "l1": (penalties.l1, lambda x: np.abs(x).sum()),
        "l2": (penalties.l2, lambda x: (x * x).sum()),
        "elastic_net": (penalties.elastic_net, lambda x: (np.abs(x) + x * x).sum() / 2),
        "huber": (penalties.huber, huber),
        "group_lasso": (
            lambda x: penalties.group_lasso(x, groups),
            lambda x: np.linalg.norm(x, axis=0).sum(),
        ),
        "total_variation": (penalties.total_variation, total_variation),
        "tree_penalty": (
            lambda x: penalties.tree_penalty(penalties.l1, {"kernel": x, "bias": x}),
            lambda x: np.abs(x).sum(),
        ),
        "prox_l1": (lambda x: penalties.prox_l1(x, step), lambda x: soft(x, step)),
        "prox_l2": (lambda x: penalties.prox_l2(x, step), lambda x: x / (1 + 2 * step)),
        "prox_elastic_net": (
            lambda x: penalties.prox_elastic_net(x, step),
            lambda x: soft(x, step / 2) / (1 + step),
        ),
        "prox_huber": (lambda x: penalties.prox_huber(x, step), prox_huber),
        "prox_group_lasso": (lambda x: penalties.prox_group_lasso(x, step, groups), shrunk),
        "prox_total_variation": (
            lambda x: penalties.prox_total_variation(x, step, iterations=500), denoised,
        ),
    }  # fmt: skip
    # The proximal operator of total variation is the result of iterations.
    tolerances = {"prox_total_variation": 1e-4}
    return [
        Case(f"penalties.{name}", call, exact, (x,), tolerances.get(name, 1e-5))
        for name, (call, exact) in expected.items()
    ]
