"""The agreement cases of `channel_grad.correlation`: its numbers in NumPy and float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from channel_grad import correlation
from experiments.benchmarks.gpu.cases import Case


def correlation_cases() -> list[Case]:
    """The measures of correlation, which take arrays of the device and compute on the host."""
    kernel = np.random.default_rng(1).normal(size=(3, 3, 4, 6))

    def gram(kernel: np.ndarray) -> np.ndarray:
        rows = np.moveaxis(kernel, -1, 0).reshape(kernel.shape[-1], -1)
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return rows @ rows.T

    def pairs(kernel: np.ndarray) -> np.ndarray:
        return gram(kernel)[np.triu_indices(kernel.shape[-1], 1)]

    def matrix(kernel: Any) -> np.ndarray:
        return correlation.matrix(kernel, other=None)

    def balanced(kernel: Any) -> tuple[np.ndarray, ...]:
        squares = correlation.balance(kernel) ** 2
        return squares.mean(axis=(0, 1, 2)), squares.mean(axis=(0, 1, 3))

    def case(name: str, call: Any, exact: Any) -> Case:
        return Case(f"correlation.{name}", call, exact, (kernel,), compiled=False)

    return [
        case("matrix", matrix, gram),
        case("balance", balanced, lambda _: (np.ones(6), np.ones(4))),
        case(
            "by_distance",
            lambda x: correlation.by_distance(matrix(x)),
            lambda x: np.array([np.mean(np.diagonal(gram(x), d)) for d in range(1, 6)]),
        ),
        case(
            "histogram",
            lambda x: correlation.histogram(matrix(x), 8)[0],
            lambda x: np.histogram(pairs(x), 8, (-1, 1), density=True)[0],
        ),
        case(
            "mean_and_deviation",
            correlation.mean_and_deviation,
            lambda x: (x.mean(axis=-1).ravel(), x.std(axis=-1, ddof=1).ravel()),
        ),
        case(
            "permutation_test",
            lambda x: np.float64(correlation.permutation_test(matrix(x), samples=10).mean),
            lambda x: pairs(x).mean(),
        ),
    ]
