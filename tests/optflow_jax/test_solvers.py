"""What every solver must do: the paper's costs, batches, zeros, NaN, singular K."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax

SOLVERS = ("auto", "cg", "cholesky", "sparse_cg", "sparse_direct")
# The paper prints 235 and 80 for the two filters of its figure 2.
FIGURE_2 = (235.517076, 80.464608)


@functools.partial(jax.jit, static_argnames=("temporal", "solver"))
def _both(filters, alpha=1.0, temporal=True, solver="auto"):
    options = {"alpha": alpha, "temporal": temporal, "solver": solver}

    def total(w):
        costs = optflow_jax.cost(w, **options)
        return costs.sum(), costs

    gradient, costs = jax.grad(total, has_aux=True)(filters)
    return optflow_jax.flow(filters, **options), costs, gradient


@pytest.mark.parametrize("solver", SOLVERS)
def test_costs_of_figure_2(oracle, solver, x64):
    filters = oracle.figure_2()
    single = optflow_jax.cost(jnp.asarray(filters, jnp.float32), solver=solver)
    np.testing.assert_allclose(single, FIGURE_2, rtol=1e-5)
    double = optflow_jax.cost(jnp.asarray(filters), solver=solver)
    np.testing.assert_allclose(double, FIGURE_2, rtol=1e-8)


def test_space_alone_does_not_give_the_paper_s_costs(oracle, x64):
    costs = optflow_jax.cost(jnp.asarray(oracle.figure_2()), temporal=False, solver="cholesky")
    np.testing.assert_allclose(costs, [190.966434, 56.033192], rtol=1e-7)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize(("shape", "temporal"), [((4, 2, 3), True), ((2, 3, 5), False)])
def test_flow_is_the_oracle_s(oracle, solver, shape, temporal, x64):
    filters = np.random.RandomState(3).randn(3, *shape)
    # A filter that is the same along y has b = 0 and a flow that is not unique.
    filters[2] = filters[2, :, :1]
    flow, cost, gradient = _both(jnp.asarray(filters), 0.7, temporal, solver)
    assert flow.converged.all()
    for i, w in enumerate(filters):
        value, slope, u, v, r = oracle.minimum(w, 0.7, temporal)
        for got, expected in (
            (cost[i], value),
            (flow.cost[i], value),
            (gradient[i], slope),
            (flow.u[i], u),
            (flow.v[i], v),
            (flow.residual[i], r),
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 1), (2, 1, 4)])
def test_flow_of_thin_filters(oracle, shape, x64):
    filters = np.random.RandomState(4).randn(2, *shape)
    for temporal in (True, False):
        for solver in ("cg", "cholesky"):
            flow, cost, gradient = _both(jnp.asarray(filters), 1.0, temporal, solver)
            assert flow.converged.all()
            for i, w in enumerate(filters):
                value, slope, u, v, _ = oracle.minimum(w, 1.0, temporal)
                np.testing.assert_allclose(cost[i], value, rtol=1e-9)
                np.testing.assert_allclose(gradient[i], slope, rtol=1e-7, atol=1e-9)
                np.testing.assert_allclose(flow.u[i], u, rtol=1e-7, atol=1e-9)
                np.testing.assert_allclose(flow.v[i], v, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    ("solver", "temporal"), [(s, True) for s in SOLVERS] + [("cg", False), ("cholesky", False)]
)
def test_a_zero_filter_and_a_broken_one_stay_alone(solver, temporal):
    rng = np.random.RandomState(5)
    filters = rng.randn(6, 2, 3, 5).astype(np.float32)
    filters[1] = 0
    broken = filters.copy()
    broken[3, 1, 2, 2], broken[5, 0, 0, 0] = np.nan, np.inf
    good = [0, 1, 2, 4]
    expected = _both(filters, 1.0, temporal, solver)
    flow, cost, gradient = _both(broken, 1.0, temporal, solver)
    assert expected[0].converged.all()
    assert flow.converged.tolist() == [True, True, True, False, True, False]
    assert np.isnan(cost[jnp.array([3, 5])]).all() and np.isnan(gradient[3]).any()
    np.testing.assert_allclose(cost[jnp.array(good)], expected[1][jnp.array(good)], rtol=1e-6)
    np.testing.assert_allclose(
        gradient[jnp.array(good)], expected[2][jnp.array(good)], rtol=1e-5, atol=1e-6
    )
    assert cost[1] == 0 and not gradient[1].any() and not flow.u[1].any()


def test_cg_counts_the_iterations_of_each_filter():
    base = np.random.RandomState(6).randn(7, 7, 7).astype(np.float32)
    filters = np.array([0.0, 0.01, 1.0, 100.0], np.float32)[:, None, None, None] * base
    flow = optflow_jax.flow(filters, solver="cg")
    assert flow.converged.all()
    assert flow.iterations[0] == 0
    assert (jnp.diff(flow.iterations) > 0).all()
    assert flow.iterations[1] <= 4 and flow.iterations[3] <= 60
    # A filter takes the same steps among others that are done at once, to within rounding.
    alone = np.zeros_like(filters)
    alone[2] = filters[2]
    iterations = optflow_jax.flow(alone, solver="cg").iterations
    assert iterations[3] == 0 and abs(iterations[2] - flow.iterations[2]) <= 2


def test_auto_falls_back_to_cholesky(monkeypatch):
    from optflow_jax import _solvers

    # No other test has this shape: JAX keeps what it traced with the poor solver.
    filters = np.random.RandomState(7).randn(2, 2, 4, 3).astype(np.float32)
    expected = optflow_jax.cost(filters, solver="cholesky")
    cg, cholesky = _solvers.SOLVERS["auto"]
    solve = cg.solve

    def poor(problem):
        solution = solve(problem)
        return solution._replace(z=solution.z * jnp.array([1.0, 1.1]))

    poor_cg = cg._replace(solve=poor)
    monkeypatch.setitem(_solvers.SOLVERS, "cg", (poor_cg,))
    monkeypatch.setitem(_solvers.SOLVERS, "auto", (poor_cg, cholesky))
    flow = optflow_jax.flow(filters, solver="auto")
    assert optflow_jax.flow(filters, solver="cg").converged.tolist() == [True, False]
    assert flow.converged.all()
    np.testing.assert_allclose(flow.cost, expected, rtol=1e-6)


def test_large_filters_take_the_other_ways_through_the_inverse(x64):
    """Every way of applying K^-1 against the matrix itself: K K^-1 x = x, off the null space."""
    from optflow_jax._operators import apply_smoothness, smoothness

    for shape, temporal in [((3, 4, 3), True), ((3, 26, 27), True), ((5, 8, 9), False)]:
        k = smoothness(*shape, temporal)
        frames = shape[0] if temporal else 1
        x = jnp.asarray(np.random.RandomState(0).randn(frames, *shape[1:], 2))
        y = k.merge(k.inverse(k.split(x)))
        np.testing.assert_allclose(apply_smoothness(y, temporal), x, atol=1e-10)
        for parity, part in zip(k.classes, k.by_class(k.split(x)), strict=True):
            matrix = parity.inverse_matrix(jnp.float64)
            np.testing.assert_allclose(matrix @ part, parity.inverse(part), atol=1e-10)
            np.testing.assert_allclose(jnp.diagonal(matrix), parity.diagonal, atol=1e-10)


def test_a_singular_filter_does_not_spoil_the_block_diagonal_system(monkeypatch):
    """Issue: [nan, nan], where the first filter alone costs 0.0519."""
    from optflow_jax._solvers import _sparse_direct

    # No other test has this shape: JAX keeps what it traced with the singular matrix.
    filters = 0.05 * np.random.RandomState(0).randn(2, 2, 2, 4).astype(np.float32)
    expected = optflow_jax.cost(filters, solver="cholesky")
    assemble = _sparse_direct.assemble

    def singular(problem):
        system = assemble(problem)
        return system._replace(values=system.values.at[1].set(0))

    monkeypatch.setattr(_sparse_direct, "assemble", singular)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy says that a matrix is singular
        costs = np.asarray(optflow_jax.cost(filters, solver="sparse_direct"))
    np.testing.assert_allclose(costs[0], expected[0], rtol=1e-5)
    assert np.isnan(costs[1])


@pytest.mark.parametrize(
    ("shape", "direct"), [((3, 5, 4), True), ((40, 8, 7), False)], ids=["small", "large"]
)
def test_on_an_accelerator_auto_factors_small_systems_and_iterates_on_large_ones(
    monkeypatch, shape, direct
):
    filters = 0.05 * np.random.RandomState(8).randn(2, *shape).astype(np.float32)
    here = optflow_jax.flow(filters)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    there = optflow_jax.flow(filters[:1])  # of another shape, so that it is traced again
    assert (here.iterations > 0).all()
    assert (there.iterations == 0).all() == direct
    assert there.converged.all()
    np.testing.assert_allclose(there.cost, here.cost[:1], rtol=1e-5)
