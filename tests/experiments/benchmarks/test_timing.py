"""Timing in turns, and the benchmark of the OptFlow regularizer: what they do, not how fast."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import optflow as bench_optflow
from experiments.benchmarks import optflow_peers, timing


def test_calls_are_made_in_turns():
    made = []
    seconds = timing.in_turns({name: lambda name=name: made.append(name) for name in "ab"}, 3)
    assert made[:4] == ["a", "a", "b", "b"]
    assert [sorted(made[i : i + 2]) for i in (4, 6, 8)] == [["a", "b"]] * 3
    assert all(times.shape == (3,) and (times > 0).all() for times in seconds.values())


def test_quartiles():
    assert timing.quartiles(np.array([1.0, 2, 3, 4, 5])) == {"median": 3, "low": 2, "high": 4}


@pytest.mark.parametrize("peer", optflow_peers.PEERS)
def test_peers_agree_with_a_dense_solution(peer):
    filters = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    cost, gradient = optflow_peers.PEERS[peer](jnp.asarray(filters))
    dx, dy, dt = (d.toarray() for d in optflow_peers.differences((3, 4, 5)))
    for w, c, g in zip(filters.astype(np.float64).reshape(2, -1), cost, gradient, strict=True):
        flow = np.hstack([np.diag(dx @ w), np.diag(dy @ w)])
        smooth = dx.T @ dx + dy.T @ dy + dt.T @ dt
        zero = np.zeros_like(smooth)
        hessian = flow.T @ flow + np.block([[smooth, zero], [zero, smooth]])
        x = -np.linalg.solve(hessian, flow.T @ (dt @ w))
        r = flow @ x + dt @ w
        least = 0.5 * (r @ r + x @ np.block([[smooth, zero], [zero, smooth]]) @ x)
        u, v = np.split(x, 2)
        slope = dx.T @ (r * u) + dy.T @ (r * v) + dt.T @ r
        np.testing.assert_allclose(c, least, rtol=1e-5)
        np.testing.assert_allclose(np.ravel(g), slope, rtol=1e-4, atol=1e-5)


def test_one_set_is_measured_with_its_errors():
    result = bench_optflow.bench_set((2, 2, 3, 3), 1.0, repetitions=2, budget=0.1)
    result["ratios"] = bench_optflow.ratios(result["methods"])
    assert result["methods"].keys() == {*bench_optflow.SOLVERS, *optflow_peers.PEERS}
    for row in result["methods"].values():
        assert row["milliseconds"] > 0
        assert row["cost_error"] < 1e-5 and row["gradient_error"] < 1e-5
    assert result["ratios"]["best jax peer"] == min(
        result["ratios"][peer] for peer in optflow_peers.JAX_PEERS
    )
    text = bench_optflow.table("2 of 2x3x3", 1.0, result)
    assert all(name in text for name in result["methods"])
