"""Both libraries' users set options of JAX: no jit to debug, no implicit promotion of any kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import optflow_jax
from optflow_jax import penalties

FILTERS = np.random.RandomState(0).randn(2, 2, 3, 3).astype(np.float32)
KERNEL = np.random.RandomState(1).randn(2, 3, 3, 2, 2).astype(np.float32)
IMAGE = np.random.RandomState(2).randn(3, 4).astype(np.float32)


def everything(solver, dtype=jnp.float32):
    """Costs, slopes of two orders and modes, the flow, the regularizer of a tree."""
    w, kernel = jnp.asarray(FILTERS, dtype), jnp.asarray(KERNEL, dtype)

    def cost(w):
        return optflow_jax.cost(w, solver=solver).sum()

    def of_tree(kernel):
        return optflow_jax.tree_regularizer({"Conv_0": {"kernel": kernel}}, solver=solver)

    zero = jnp.zeros_like(w)
    return (
        jax.value_and_grad(cost)(w),
        jax.jvp(jax.grad(cost), (w,), (w,)),
        jax.jvp(lambda w: optflow_jax.cost_forward(w, solver=solver), (w,), (w,)),
        optflow_jax.flow(w, solver=solver, temporal=False)[:4],
        optflow_jax.loss(w, zero, zero),
        jax.value_and_grad(of_tree)(kernel),
    )


def all_penalties(dtype=jnp.float32):
    x = jnp.asarray(IMAGE, dtype)
    p = penalties
    tree = {"a": {"kernel": x}, "b": {"kernel": jnp.asarray(IMAGE)}}
    return (
        *(jax.value_and_grad(f)(x) for f in (p.l1, p.l2, p.huber, p.elastic_net)),
        jax.value_and_grad(lambda x: p.total_variation(x, epsilon=0.1))(x),
        p.group_lasso(x, axis=0),
        *(f(x, 0.3) for f in (p.prox_l1, p.prox_l2, p.prox_huber, p.prox_elastic_net)),
        p.prox_group_lasso(x, 0.3, axis=0),
        p.prox_total_variation(x, 0.3, iterations=3),
        p.tree_penalty(p.l2, tree),
    )


def assert_alike(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        tolerance = 2e-4 if a.dtype == jnp.float32 else 2e-2
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), tolerance, tolerance
        )


def test_without_jit_as_people_debug():
    """Loops run in Python then: all derivatives by the solver that has none, a cost by "auto"."""

    def by_loops():
        return optflow_jax.cost(FILTERS[:1])

    expected = jax.jit(lambda: everything("cholesky"))(), by_loops(), all_penalties()
    with jax.disable_jit():
        got = everything("cholesky"), by_loops(), all_penalties()
    assert_alike(got, expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("solver", ["cg", "cholesky", "sparse_cg"])
def test_without_implicit_promotion(solver, dtype):
    expected = jax.jit(lambda: everything(solver, dtype))()
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert_alike(jax.jit(lambda: everything(solver, dtype))(), expected)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_penalties_without_implicit_promotion(dtype):
    expected = all_penalties(dtype)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        assert_alike(all_penalties(dtype), expected)


def test_on_devices_without_implicit_promotion():
    """XLA asks for the program of one device when the context of the call is long left."""
    mesh = jax.make_mesh((2,), ("x",), devices=jax.devices()[:2])
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x"))
    with jax.numpy_rank_promotion("raise"):
        got = jax.jit(lambda w: optflow_jax.cost(w, solver="cg"))(jax.device_put(FILTERS, place))
    np.testing.assert_allclose(got, optflow_jax.cost(FILTERS, solver="cg"), rtol=1e-5)
