"""What an agreement case is, and the cases of channel_grad: its numbers from the equations.

The expected numbers are computed with NumPy in float64, from matrices that are written down from
the definitions; nothing of the library is used for them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import optax

import channel_grad

# Greatest accepted error, relative to the largest number of a result. Inputs are rounded to the
# dtype first, so that bfloat16 has the rounding of results (2^-9) alone, and sums of such.
TOLERANCES = {"float32": 1e-5, "bfloat16": 1e-2}
CHANNELS = 40


@dataclasses.dataclass(frozen=True)
class Case:
    """One function of a library, at some arguments.

    Attributes:
      name: of the function, with what is chosen in it.
      call: of JAX arrays, to a tree of arrays.
      exact: of the same arrays in float64 NumPy, to the same tree.
      arguments: float64.
      tolerance: for float32, if it is not that of TOLERANCES.
      compiled: whether it can be compiled; otherwise it computes on the host.
    """

    name: str
    call: Callable[..., Any]
    exact: Callable[..., Any]
    arguments: tuple[np.ndarray, ...]
    tolerance: float = TOLERANCES["float32"]
    compiled: bool = True


def sobolev_matrix(n: int, lam: float, l2_weight: float, discretization: str) -> np.ndarray:
    """The map f -> g of the Sobolev metric, from eq. 6, eq. 9 or figure 12."""
    mean, identity = np.full((n, n), 1 / n), np.eye(n)
    second = np.roll(identity, 1, axis=0) - 2 * identity + np.roll(identity, -1, axis=0)
    h = np.linalg.inv(mean - lam * n**2 * second)
    if discretization == "riemann":
        s = (np.arange(n)[:, None] - np.arange(n)) % n / n
        h = (1 + (s * s - s + 1 / 6) / (2 * lam)) / n
    if discretization == "listing":
        h = h - h[:1] + mean  # begins with the mean of f
    return l2_weight * identity + lam * h


def learned_step(f: np.ndarray, damping: float) -> np.ndarray:
    """The first step of the learned metric, from C = F'F and the power 1/2."""
    rows = f.reshape(-1, f.shape[-1])
    moment = rows.T @ rows
    values, vectors = np.linalg.eigh(moment / np.trace(moment) * len(moment))
    product = rows @ (vectors / np.sqrt(np.maximum(values, 0) + damping)) @ vectors.T
    return (product * (np.linalg.norm(rows) / np.linalg.norm(product))).reshape(f.shape)


def reweighted_matrix(n: int, lam: float, form: str) -> np.ndarray:
    """The map f -> g of the re-weighted L2 metric, from figure 3 or eqs. 4 and 8."""
    mean, identity = np.full((n, n), 1 / n), np.eye(n)
    return identity + lam * mean if form == "code" else mean + (identity - mean) / lam


def laplacian_matrix(n: int, sigma: float, order: int) -> np.ndarray:
    """The map f -> g of Laplacian smoothing."""
    identity = np.eye(n)
    second = np.roll(identity, 1, axis=0) - 2 * identity + np.roll(identity, -1, axis=0)
    return np.linalg.inv(identity + sigma * np.linalg.matrix_power(-second, order))


# Metric -> its variants: (the metric, its map along n channels).
METRICS: dict[str, list[tuple[channel_grad.Metric, Callable[[int], np.ndarray]]]] = {
    "l2": [(channel_grad.L2(), np.eye)],
    "reweighted_l2": [
        (
            channel_grad.ReweightedL2(0.7, form),
            lambda n, form=form: reweighted_matrix(n, 0.7, form),
        )
        for form in channel_grad.ReweightedL2.FORMS
    ],
    "sobolev": [
        (
            channel_grad.Sobolev(0.7, 0.3, kind),
            lambda n, kind=kind: sobolev_matrix(n, 0.7, 0.3, kind),
        )
        for kind in channel_grad.Sobolev.DISCRETIZATIONS
    ],
    "laplacian": [
        (
            channel_grad.LaplacianSmoothing(0.7, order),
            lambda n, order=order: laplacian_matrix(n, 0.7, order),
        )
        for order in (1, 2)
    ],
}


def metric_cases() -> list[Case]:
    """Every metric, discretization and method; inner products, kernels, transformations."""
    rng = np.random.default_rng(0)
    f, k = rng.normal(size=(2, 3, 3, 4, CHANNELS))
    raster = rng.normal(size=(2, 3, 4, 8))
    cases = []
    for name, variants in METRICS.items():
        for metric, matrix in variants:
            m = matrix(CHANNELS)
            which = f"{name} {variant}" if (variant := _variant(metric)) else name
            for method in metric.METHODS:
                cases.append(
                    Case(
                        f"{which} gradient {method}",
                        lambda f, metric=metric, method=method: metric.gradient(f, method=method),
                        lambda f, m=m: f @ m.T,
                        (f,),
                    )
                )
            cases.append(
                Case(
                    f"{which} gradient raster",
                    lambda f, metric=metric: metric.gradient(f, axis=(0, 1, 2, 3)),
                    lambda f, matrix=matrix: (matrix(f.size) @ f.ravel()).reshape(f.shape),
                    (raster,),
                )
            )
            if which.endswith("listing"):  # is the gradient of no metric
                continue
            cases += [
                Case(
                    f"{which} inner",
                    lambda f, k, metric=metric: metric.inner(f, k),
                    lambda f, k, m=m: np.sum(f * (k @ np.linalg.inv(m).T)) / CHANNELS,
                    (f, k + f),
                ),
                Case(
                    f"{which} kernel",
                    lambda _, metric=metric: metric.kernel(CHANNELS),
                    lambda _, m=m: m[:, 0],
                    (f,),
                ),
            ]
    return cases + _transformations(f)


def _transformations(f: np.ndarray) -> list[Case]:
    made = {
        "scale_by_metric": (channel_grad.scale_by_metric(channel_grad.L2()), np.eye(CHANNELS)),
        "scale_by_reweighted_l2": (
            channel_grad.scale_by_reweighted_l2(0.7),
            reweighted_matrix(CHANNELS, 0.7, "code"),
        ),
        "scale_by_sobolev": (
            channel_grad.scale_by_sobolev(0.7, l2_weight=0.3),
            sobolev_matrix(CHANNELS, 0.7, 0.3, "exact"),
        ),
        "scale_by_laplacian_smoothing": (
            channel_grad.scale_by_laplacian_smoothing(0.7),
            laplacian_matrix(CHANNELS, 0.7, 1),
        ),
    }

    def tree(kernel: Any, bias: Any) -> dict[str, Any]:
        return {"Conv_0": {"kernel": kernel, "bias": bias}}

    def update(transform: optax.GradientTransformation, kernel: Any, bias: Any) -> Any:
        gradient = tree(kernel, bias)
        return transform.update(gradient, transform.init(gradient))[0]

    return [
        Case(
            name,
            lambda kernel, bias, transform=transform: update(transform, kernel, bias),
            lambda kernel, bias, m=m: tree(kernel @ m.T, bias),
            (f, f[0, 0, 0]),
        )
        for name, (transform, m) in made.items()
    ] + [
        Case(
            "scale_by_learned_metric",
            lambda kernel, bias: update(
                channel_grad.scale_by_learned_metric(damping=1.0), kernel, bias
            ),
            lambda kernel, bias: tree(learned_step(kernel, damping=1.0), bias),
            (f, f[0, 0, 0]),
        )
    ]


def _variant(metric: Any) -> str:
    for name in ("discretization", "form", "order"):
        if hasattr(metric, name):
            return f"{name}={getattr(metric, name)}".removeprefix("discretization=")
    return ""
