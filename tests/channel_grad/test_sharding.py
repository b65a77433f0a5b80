"""On eight simulated devices: results, collectives and memory, by meshes of both kinds."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import channel_grad as cg
from channel_grad import _sharding

METRICS = {
    "reweighted": cg.ReweightedL2(),
    "sobolev": cg.Sobolev(),
    "listing": cg.Sobolev(discretization="listing"),
    "laplacian": cg.LaplacianSmoothing(),
}
KINDS = {"auto": AxisType.Auto, "explicit": AxisType.Explicit}
every = pytest.mark.parametrize("name", METRICS)
both = pytest.mark.parametrize("kind", KINDS)
COLLECTIVE = re.compile(
    r"= (.*?) (?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def place(f, kind, *spec):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(KINDS[kind],))
    return jax.device_put(f, NamedSharding(mesh, P(*spec)))


def random(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def elements_moved(compiled):
    """The number of elements in the results of each collective of a compiled program."""
    shapes = (
        re.findall(r"\w+\[([\d,]*)\]", line) for line in COLLECTIVE.findall(compiled.as_text())
    )
    return [
        sum(int(np.prod([int(n) for n in dims.split(",") if n])) for dims in each)
        for each in shapes
    ]


def compiled(metric, f, axis=-1):
    program = jax.jit(lambda f: metric.gradient(f, axis)).lower(f).compile()
    return program, program(f)


@both
@every
@pytest.mark.parametrize("n", [32, 64, 320])
def test_nothing_moves_where_the_metric_axis_is_whole(name, kind, n):
    """Not for a dense product (32), nor for blocks (64), nor for blocks with padding (320)."""
    metric, f = METRICS[name], random(3, 3, 16, n)
    program, g = compiled(metric, place(f, kind, None, None, "x"))
    assert elements_moved(program) == []
    assert g.sharding.spec[2] == "x"
    np.testing.assert_allclose(g, metric.gradient(f), rtol=1e-4, atol=1e-5)
    # Temporary memory: less than three times a device's share, and the matrix of a product.
    share = f.nbytes / 8
    assert program.memory_analysis().temp_size_in_bytes <= 3 * share + 4 * n * n


@both
@pytest.mark.parametrize("axis", [0, 2])
def test_nothing_moves_for_a_metric_axis_in_the_middle(kind, axis):
    f = random(64, 8, 64)
    spec = ("x",) if axis == 2 else (None, "x")
    program, g = compiled(cg.Sobolev(), place(f, kind, *spec), axis)
    assert elements_moved(program) == []
    np.testing.assert_allclose(g, cg.Sobolev().gradient(f, axis), rtol=1e-4, atol=1e-5)


@both
@every
@pytest.mark.parametrize("n", [32, 64, 320])
def test_what_moves_where_the_metric_axis_is_sharded(name, kind, n):
    """A mean for the re-weighted metric, knots of blocks for Sobolev, lines for the rest."""
    metric, f = METRICS[name], random(3, 3, 16, n)
    program, g = compiled(metric, place(f, kind, None, None, None, "x"))
    np.testing.assert_allclose(g, metric.gradient(f), rtol=1e-4, atol=1e-5)
    moved, rows = elements_moved(program), f.size // n
    if name == "reweighted":
        assert moved == [rows]
    elif name == "sobolev" and n > 32:
        # Blocks of 8: n/8 + 1 knots and a mean are summed; parts of them go to the neighbours.
        assert max(moved) <= rows * (n / 8 + 2)
        assert sum(moved) < 0.75 * f.size
    else:
        assert sum(moved) <= (2 if name == "listing" else 1) * f.size
    if kind == "explicit":
        assert g.sharding.spec[3] == "x"


@both
def test_on_a_grid_of_devices_only_the_metric_axis_is_gathered(kind):
    mesh = jax.make_mesh((2, 4), ("x", "y"), axis_types=2 * (KINDS[kind],))
    f = random(3, 3, 16, 64)
    sharded = jax.device_put(f, NamedSharding(mesh, P(None, None, "x", "y")))
    for metric in (cg.Sobolev(), cg.LaplacianSmoothing()):
        program, g = compiled(metric, sharded)
        assert sum(elements_moved(program)) <= f.size / 2
        np.testing.assert_allclose(g, metric.gradient(f), rtol=1e-4, atol=1e-5)


@both
@every
def test_transformation_of_a_tree(name, kind):
    """In jit and outside, each axis sharded in turn, several axes flattened, bfloat16."""
    f = random(8, 8, 16, 64)
    for axes, transform in {
        -1: cg.scale_by_metric(METRICS[name], axes=cg.output_axes),
        (3, 2, 0, 1): cg.scale_by_metric(METRICS[name], axes=cg.raster),
    }.items():
        alone = METRICS[name].gradient(f, axes)
        for axis in range(4) if axes == -1 else (2,):
            spec = [None] * axis + ["x"]
            tree = {"Conv_0": {"kernel": place(f, kind, *spec), "bias": place(f[0, 0, 0], kind)}}
            state = transform.init(tree)
            g, _ = jax.jit(transform.update)(tree, state)
            np.testing.assert_allclose(g["Conv_0"]["kernel"], alone, rtol=1e-4, atol=1e-5)
            if kind == "explicit":
                assert g["Conv_0"]["kernel"].sharding.spec[axis] == "x"
        g, _ = transform.update(tree, state)
        np.testing.assert_allclose(g["Conv_0"]["kernel"], alone, rtol=1e-4, atol=1e-5)
    half = place(jnp.asarray(f, jnp.bfloat16), kind, None, None, "x")
    assert METRICS[name].gradient(half).dtype == jnp.bfloat16


@both
def test_derivatives_vmap_and_inner_products(kind):
    """The gradient is a symmetric linear map, and commutes with vmap over a sharded axis."""
    metric, f, k = cg.Sobolev(), random(8, 4, 64), random(8, 4, 64)[::-1].copy()
    sharded, other = place(f, kind, "x"), place(k, kind, "x")
    expected = metric.gradient(k)
    g, backwards = jax.vjp(jax.jit(metric.gradient), sharded)
    np.testing.assert_allclose(g, metric.gradient(f), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(backwards(other)[0], expected, rtol=1e-4, atol=1e-5)
    _, forwards = jax.jvp(jax.jit(metric.gradient), (sharded,), (other,))
    np.testing.assert_allclose(forwards, expected, rtol=1e-4, atol=1e-5)
    mapped = jax.jit(jax.vmap(metric.gradient))(sharded)
    np.testing.assert_allclose(mapped, metric.gradient(f), rtol=1e-4, atol=1e-5)
    for spec in (("x",), (None, None, "x")):
        inner = jax.jit(metric.inner)(place(f, kind, *spec), place(k, kind, *spec))
        np.testing.assert_allclose(inner, metric.inner(f, k), rtol=1e-4)


@both
def test_with_the_mesh_in_scope_and_traced_numbers(kind):
    """As a training loop does it: jax.set_mesh, init and update under jit, schedules."""
    mesh = jax.make_mesh((8,), ("x",), axis_types=(KINDS[kind],))
    f = random(3, 3, 16, 64)
    schedule = optax.constant_schedule(jnp.asarray(2.0))
    smoothing = optax.inject_hyperparams(cg.scale_by_laplacian_smoothing)(sigma=schedule)
    for first, alone in (
        (cg.scale_by_sobolev(lam=lambda count: 2.0 + count), cg.Sobolev(2.0)),
        (smoothing, cg.LaplacianSmoothing(2.0)),
    ):
        transform = optax.chain(first, optax.sgd(1.0))
        with jax.set_mesh(mesh):
            tree = {
                "Conv_0": {"kernel": jax.device_put(f, NamedSharding(mesh, P(None, None, "x")))}
            }
            state = jax.jit(transform.init)(tree)
            g, state = jax.jit(transform.update)(tree, state, tree)
        np.testing.assert_allclose(-g["Conv_0"]["kernel"], alone.gradient(f), atol=1e-4)


@both
def test_in_shard_map(kind):
    f = random(8, 4, 64)
    sharded = place(f, kind, "x")
    mesh = sharded.sharding.mesh
    per_device = jax.shard_map(cg.Sobolev().gradient, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
    np.testing.assert_allclose(jax.jit(per_device)(sharded), cg.Sobolev().gradient(f), atol=1e-5)


@every
@pytest.mark.parametrize("n", [33, 64, 320])
def test_one_device_takes_other_algorithms_to_the_same_result(name, n, monkeypatch):
    f = random(3, 2, n)
    several = METRICS[name].gradient(f)
    for module in (cg._circulant, _sharding, cg._circulant.apply_prefix.__globals__):
        if isinstance(module, dict):
            monkeypatch.setitem(module, "several_devices", lambda: False)
        else:
            monkeypatch.setattr(module, "several_devices", lambda: False)
    one = METRICS[name].gradient(f)
    np.testing.assert_allclose(one, several, rtol=1e-4, atol=1e-5)
