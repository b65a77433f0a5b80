"""The agreement cases of optflow_jax: its numbers from the equations, in NumPy and float64."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

import optflow_jax
from experiments.benchmarks.gpu.cases import Case

SOLVERS = ("auto", "cg", "cholesky", "sparse_cg", "sparse_direct")
# The flow is the solution of a system whose condition grows with the filter; cost and gradient are
# not touched by that in first order, and are held to 1e-5.
FLOW_TOLERANCE = 1e-3
ALPHA = 0.5


def _differences(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """The matrices of the x-, y- and time-difference of a flattened filter."""
    t, h, w = shape

    def central(n: int) -> np.ndarray:
        return np.eye(n, k=1) - np.eye(n, k=-1)

    forward = np.eye(t, k=1) - np.eye(t)
    dx = np.kron(np.eye(t * h), central(w))
    dy = np.kron(np.eye(t), np.kron(central(h), np.eye(w)))
    return dx, dy, np.kron(forward, np.eye(h * w))


def solved(filters: np.ndarray, alpha: float = ALPHA, temporal: bool = True) -> dict[str, Any]:
    """Equations 3, 4, 5 and 11 for filters (N, T, H, W): cost, gradient, u, v and residual."""
    dx, dy, dt = _differences(filters.shape[1:])
    k = dx.T @ dx + dy.T @ dy + (dt.T @ dt if temporal else 0)
    found: dict[str, list] = {"cost": [], "gradient": [], "u": [], "v": [], "residual": []}
    for one in filters:
        w = one.ravel()
        a, b, c = dx @ w, dy @ w, dt @ w
        cross = np.diag(a * b)
        hessian = np.block([[np.diag(a * a) + alpha * k, cross], [cross, np.diag(b * b)]])
        hessian[len(w) :, len(w) :] += alpha * k
        # Of least norm, where the flow is not unique.
        u, v = np.split(np.linalg.lstsq(hessian, -np.concatenate([a * c, b * c]))[0], 2)
        r = a * u + b * v + c
        slope = dx.T @ (r * u) + dy.T @ (r * v) + dt.T @ r
        values = 0.5 * (r @ r + alpha * (u @ k @ u + v @ k @ v)), slope, u, v, r
        for name, value in zip(found, values, strict=True):
            found[name].append(value if np.ndim(value) == 0 else value.reshape(one.shape))
    return {name: np.stack(values) for name, values in found.items()}


def solver_cases(solver: str) -> list[Case]:
    """Cost and gradient, and the flow, by one solver, with and without the temporal term."""
    filters = np.random.default_rng(2).normal(size=(4, 3, 5, 6))
    cases = []
    for temporal in (True, False):
        options: dict[str, Any] = {"alpha": ALPHA, "temporal": temporal, "solver": solver}
        which = f"{solver}{'' if temporal else ', without the temporal term'}"

        def cost(w: Any, options: dict[str, Any] = options) -> tuple[jax.Array, jax.Array]:
            value, pull_back = jax.vjp(lambda w: optflow_jax.cost(w, **options), w)
            return value, pull_back(jax.numpy.ones_like(value))[0]

        def flow(w: Any, options: dict[str, Any] = options) -> tuple[jax.Array, ...]:
            found = optflow_jax.flow(w, **options)
            return found.u, found.v, found.residual, found.converged

        def exact(w: np.ndarray, *names: str, temporal: bool = temporal) -> tuple:
            found = solved(w, temporal=temporal)
            return tuple(found[name] for name in names)

        cases += [
            Case(
                f"cost and gradient, {which}",
                cost,
                lambda w, exact=exact: exact(w, "cost", "gradient"),
                (filters,),
            ),
            Case(
                f"flow, {which}",
                flow,
                lambda w, exact=exact: (*exact(w, "u", "v", "residual"), np.ones(len(w))),
                (filters,),
                FLOW_TOLERANCE,
            ),
        ]
    return cases


def kernel_cases() -> list[Case]:
    """What `optflow_jax` has besides solvers, on the kernel of a convolution."""
    rng = np.random.default_rng(3)
    kernel = rng.normal(size=(3, 4, 5, 3, 4))
    filters, u, v, change = rng.normal(size=(4, 2, 3, 4, 5))
    luma = np.array([0.2989, 0.5870, 0.1140])

    def rgb(kernel: np.ndarray) -> np.ndarray:
        return np.tensordot(np.moveaxis(kernel, 4, 0), luma, axes=(4, 0))

    def mean_cost(kernel: np.ndarray) -> np.floating:
        return np.mean(solved(rgb(kernel), 1.0)["cost"])

    def loss(w: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        dx, dy, dt = _differences(w.shape[1:])
        w, u, v = (x.reshape(len(x), -1) for x in (w, u, v))
        r = (w @ dx.T) * u + (w @ dy.T) * v + w @ dt.T
        rough = sum(np.sum((x @ d.T) ** 2, axis=1) for x in (u, v) for d in (dx, dy, dt))
        return 0.5 * (np.sum(r * r, axis=1) + rough)

    def tangent(w: np.ndarray, change: np.ndarray) -> np.ndarray:
        return np.sum(solved(w, 1.0)["gradient"] * change, axis=(1, 2, 3))

    return [
        Case("collapse", lambda k: optflow_jax.collapse(k, "rgb"), rgb, (kernel,)),
        Case(
            "regularizer",
            lambda k: optflow_jax.regularizer(k, channels="rgb"),
            mean_cost,
            (kernel,),
        ),
        Case(
            "tree_regularizer",
            lambda k: optflow_jax.tree_regularizer({"Conv_0": {"kernel": k}}, channels="rgb"),
            mean_cost,
            (kernel,),
        ),
        Case("loss", optflow_jax.loss, loss, (filters, u, v)),
        Case(
            "cost_forward, jvp",
            lambda w, change: jax.jvp(optflow_jax.cost_forward, (w,), (change,))[1],
            tangent,
            (filters, change),
        ),
    ]
