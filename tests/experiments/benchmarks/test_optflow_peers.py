"""The other ways to compute cost and gradient agree with a dense solution in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.benchmarks import optflow_peers


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
