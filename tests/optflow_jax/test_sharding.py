"""Filters on eight devices: the same numbers, and no communication along the batch."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import optflow_jax

COLLECTIVES = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"
KINDS = pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)


def _collectives(compiled) -> list[str]:
    return re.findall(rf" ({COLLECTIVES})(?:-start)?\(", compiled.as_text())


def _filters(*shape):
    filters = np.random.RandomState(0).randn(*shape).astype(np.float32)
    # Filters of many scales take different numbers of iterations on each device.
    return filters * 10 ** np.linspace(-2, 1, len(filters), dtype=np.float32).reshape(
        -1, *[1] * (len(shape) - 1)
    )


def _on(mesh, x, *spec):
    return jax.device_put(x, NamedSharding(mesh, P(*spec)))


def _functions(solver):
    """Cost, gradient, flow and Hessian-vector product."""
    cost = functools.partial(optflow_jax.cost, solver=solver)

    def gradient(w):
        return jax.grad(lambda w: cost(w, alpha=0.5).sum())(w)

    def product(w):
        return jax.jvp(gradient, (w,), (jnp.sin(w),))[1]

    def flow(w):
        return optflow_jax.flow(w, solver=solver)

    return cost, gradient, flow, product


def _everything(solver, w):
    return [f(w) for f in _functions(solver)]


def _assert_close(got, expected):
    # The flow's report (iterations) may differ by one: sums are taken in another order.
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(b.dtype, jnp.floating):
            size = float(jnp.max(jnp.abs(b)))
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5 * size)


@KINDS
# "auto" contains "cg" and "cholesky".
@pytest.mark.parametrize("solver", ["auto", "sparse_cg"])
def test_a_sharded_batch_needs_no_communication(kind, solver):
    filters = _filters(16, 2, 3, 4)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    function = jax.jit(functools.partial(_everything, solver))
    sharded = _on(mesh, filters, "x")
    compiled = function.lower(sharded).compile()
    assert _collectives(compiled) == []
    got = compiled(sharded)
    assert all(
        len(x.sharding.device_set) == 8 and not x.is_fully_replicated for x in jax.tree.leaves(got)
    )
    _assert_close(got, function(filters))


@KINDS
def test_every_axis_may_be_sharded(kind):
    """Along the batch nothing is communicated; pixels are gathered; the numbers are the same."""
    filters = _filters(8, 2, 8, 8, 8)
    mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=(kind,) * 2)

    def separate(w):
        cost, pull_back = jax.vjp(lambda w: optflow_jax.cost(w, solver="cg"), w)
        return cost, pull_back(jnp.ones_like(cost))

    expected = jax.jit(separate)(filters)
    for spec in [
        ("x",),
        ("x", "y"),
        (None, "y"),
        (("x", "y"),),
        (None, None, "x"),
        (None, None, None, "x"),
        ("x", None, None, None, "y"),
    ]:
        sharded = _on(mesh, filters, *spec)
        compiled = jax.jit(separate).lower(sharded).compile()
        if len(spec) <= 2:
            assert _collectives(compiled) == []
        _assert_close(compiled(sharded), expected)


def test_the_count_of_collectives_can_fail():
    """A sum over the batch does communicate, so the tests above see something."""
    mesh = jax.make_mesh((8,), ("x",))
    total = jax.jit(lambda w: optflow_jax.cost(w, solver="cg").sum())
    compiled = total.lower(_on(mesh, _filters(16, 2, 3, 4), "x")).compile()
    assert set(_collectives(compiled)) == {"all-reduce"}


@KINDS
@pytest.mark.parametrize("axis", [2, 3, 4])  # pixels, input and output channels
def test_a_kernel_sharded_along_any_axis(kind, axis):
    kernel = np.random.RandomState(1).randn(8, 8, 8, 8, 16).astype(np.float32)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    sharded = _on(mesh, kernel, *[None] * axis, "x")
    slope = jax.jit(jax.value_and_grad(functools.partial(optflow_jax.regularizer, solver="cg")))
    _assert_close(slope(sharded), slope(kernel))
    torch = functools.partial(optflow_jax.collapse, layout="torch")
    _assert_close(jax.jit(torch)(sharded), torch(kernel))


@pytest.mark.parametrize(
    ("solver", "temporal"),
    [("auto", True), ("sparse_cg", False), ("sparse_direct", True)],
)
def test_inside_shard_map(solver, temporal):
    """At its default check_vma=True: loops and derivative rules agree about what varies."""
    if solver == "sparse_direct":
        filters, devices = _filters(2, 2, 3, 3), 2
    else:
        filters, devices = _filters(8, 2, 3, 3), 8
    mesh = jax.make_mesh((devices,), ("x",), devices=jax.devices()[:devices])
    cost = functools.partial(optflow_jax.cost, solver=solver, temporal=temporal)

    def everything(w, alpha):
        def gradient(w, alpha):
            return jax.grad(lambda w, a: cost(w, alpha=a).sum(), (0, 1))(w, alpha)

        product = jax.jvp(lambda w: gradient(w, alpha)[0], (w,), (jnp.sin(w),))[1]
        slope, of_alpha = gradient(w, alpha)
        found = optflow_jax.flow(w, alpha=alpha, solver=solver, temporal=temporal)
        return (cost(w, alpha=alpha), slope, product, found), of_alpha

    alpha = jnp.float32(0.5)
    sharded, alone = _on(mesh, filters, "x"), jax.jit(everything)(filters, alpha)
    mapped = jax.shard_map(everything, mesh=mesh, in_specs=(P("x"), P()), out_specs=(P("x"), P()))
    _assert_close(jax.jit(mapped)(sharded, _on(mesh, alpha)), alone)


def test_alpha_alone_may_be_sharded():
    filters, alpha = _filters(1, 2, 3, 4)[0], np.linspace(0.1, 2, 8, dtype=np.float32)
    mesh = jax.make_mesh((8,), ("x",))
    batch = np.broadcast_to(filters, (8, *filters.shape))
    cost = jax.jit(lambda w, a: optflow_jax.cost(w, alpha=a))
    expected = cost(batch, alpha)
    got = cost(batch, _on(mesh, alpha, "x"))
    np.testing.assert_allclose(got, expected, rtol=1e-5)
    each = jax.jit(jax.vmap(lambda a: optflow_jax.cost(filters, alpha=a)))(_on(mesh, alpha, "x"))
    np.testing.assert_allclose(each, expected, rtol=1e-5)


def test_a_batch_by_vmap_and_a_mixed_mesh():
    filters = _filters(8, 2, 2, 3, 4)
    cost = jax.jit(functools.partial(optflow_jax.cost, solver="cg"))
    one_by_one = jax.jit(jax.vmap(functools.partial(optflow_jax.cost, solver="cg")))
    expected = cost(filters)
    for types in (
        (AxisType.Explicit, AxisType.Auto),
        (AxisType.Explicit,) * 2,
        (AxisType.Auto,) * 2,
    ):
        mesh = jax.make_mesh((4, 2), ("x", "y"), axis_types=types)
        sharded = _on(mesh, filters, "x", "y" if types[0] == types[1] else None)
        np.testing.assert_allclose(cost(sharded), expected, rtol=1e-5)
        np.testing.assert_allclose(one_by_one(sharded), expected, rtol=1e-5)


def test_loss_of_sharded_filters():
    filters = _filters(8, 2, 2, 3, 4)
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
        sharded = _on(mesh, filters, "x")
        loss = jax.jit(lambda w: optflow_jax.loss(w, w, w))
        compiled = loss.lower(sharded).compile()
        assert _collectives(compiled) == []
        np.testing.assert_allclose(compiled(sharded), loss(filters), rtol=1e-5)


@KINDS
def test_tiny_filters_which_are_solved_in_float64_too(kind):
    filters = 1 + 1e-3 * _filters(8, 1, 2, 2)
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    sharded, gradient = _on(mesh, filters, "x"), _functions("cg")[1]
    slope = jax.jit(gradient)
    compiled = slope.lower(sharded).compile()
    assert _collectives(compiled) == []
    expected = np.asarray(slope(filters))
    assert expected.dtype == np.float32
    got = [compiled(sharded), jax.jit(jax.vmap(gradient))(sharded)]
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    got.append(jax.jit(mapped)(sharded))
    for each in got:
        np.testing.assert_allclose(each, expected, rtol=1e-5, atol=1e-6 * abs(expected).max())
