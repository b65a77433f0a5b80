"""The learned metric against float64, and as a good citizen of optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import channel_grad as cg

N = 6


def gradients(seed, dtype=np.float32, n=N):
    """Correlated along the output channels, with scales from 1 to n."""
    rng = np.random.default_rng(seed)
    mix = np.eye(n) + 0.5
    kernel = rng.normal(size=(3, 3, 2, n)) @ mix * (1 + np.arange(n))
    return {"conv": {"kernel": jnp.asarray(kernel, dtype), "bias": jnp.ones(n, dtype)}}


def reference(fs, power=0.5, decay=0.95, damping=0.01, every=20, axis=-1):
    """Gradients, C and P in NumPy's float64, from the equations of the docstring."""
    n = fs[0].shape[axis]
    moment, found = np.zeros((n, n)), []
    for step, f in enumerate(np.asarray(fs, np.float64)):
        lines = np.moveaxis(f, axis, -1)
        rows = lines.reshape(-1, n)
        moment = decay * moment + (1 - decay) * rows.T @ rows
        if step % every == 0:
            values, vectors = np.linalg.eigh(n * moment / np.trace(moment) + damping * np.eye(n))
            root = vectors @ np.diag(values**-power) @ vectors.T
        product = rows @ root
        product *= np.linalg.norm(rows) / np.linalg.norm(product)
        found.append(np.moveaxis(product.reshape(lines.shape), -1, axis))
    return found, moment, root


def run(transform, trees):
    state = transform.init(trees[0])
    update, found = jax.jit(transform.update), []
    for tree in trees:
        g, state = update(tree, state, tree)
        found.append(g)
    return found, state


def close(actual, desired, tolerance=1e-5):
    scale = np.abs(np.asarray(desired, np.float64)).max()
    np.testing.assert_allclose(
        np.asarray(actual, np.float64) / scale, desired / scale, 0, tolerance
    )


@pytest.mark.parametrize(
    "numbers",
    [{}, {"power": 0.25, "decay": 0.5, "damping": 0.1, "every": 7}],
    ids=["default", "other"],
)
def test_fifty_steps_are_the_equations_in_float64(numbers):
    trees = [gradients(seed) for seed in range(50)]
    found, state = run(cg.scale_by_learned_metric(**numbers), trees)
    expected, moment, root = reference([tree["conv"]["kernel"] for tree in trees], **numbers)
    for tree, g, e in zip(trees, found, expected, strict=True):
        close(g["conv"]["kernel"], e)
        np.testing.assert_array_equal(g["conv"]["bias"], tree["conv"]["bias"])
    close(state.second_moment["conv"]["kernel"], moment)
    close(state.root["conv"]["kernel"], root)
    assert state.count == 50
    assert state.root["conv"]["bias"] == optax.MaskedNode()


def test_values_by_hand():
    """F = (3, 4): C has the eigenvalues 25 and 0, so F P = F."""
    f = {"kernel": jnp.array([[[3.0, 4.0]]])}
    g, _ = run(cg.scale_by_learned_metric(damping=1.0, power=1.0), [f])
    close(g[0]["kernel"], np.array([[[3.0, 4.0]]]))
    # F = diag(3, 4): C = diag(9, 16), with mean eigenvalue 12.5; no damping to speak of: both
    # directions come out alike, at the norm 5 of F.
    f = {"kernel": jnp.array([[[3.0, 0.0], [0.0, 4.0]]])}
    g, _ = run(cg.scale_by_learned_metric(damping=1e-12), [f])
    close(g[0]["kernel"], np.array([[[12.5**0.5, 0.0], [0.0, 12.5**0.5]]]))


def test_one_step_without_damping_is_the_orthogonal_factor():
    """What Muon approximates: U V' of F = U S V', here at the norm of F."""
    with jax.enable_x64(True):
        tree = gradients(0, np.float64)
        g, state = cg.scale_by_learned_metric(decay=0.0, damping=1e-14).update(
            tree, cg.scale_by_learned_metric().init(tree)
        )
        assert state.root["conv"]["kernel"].dtype == jnp.float64
        rows = np.asarray(tree["conv"]["kernel"]).reshape(-1, N)
        u, s, v = np.linalg.svd(rows, full_matrices=False)
        expected = u @ v * np.linalg.norm(s) / N**0.5
        np.testing.assert_allclose(np.asarray(g["conv"]["kernel"]).reshape(-1, N), expected, 1e-7)


def test_the_metric_of_the_paper_is_one_such_root():
    """A second moment with one direction stronger than the rest: P scales the mean and the rest."""
    rng = np.random.default_rng(0)
    n, rows = 8, np.linalg.qr(rng.normal(size=(36, 8)))[0]
    mean = np.full((n, n), 1 / n)
    lines = rows @ (np.eye(n) + 2.0 * mean)  # C = I + 8 J / n
    f = {"kernel": jnp.asarray(lines.reshape(3, 3, 4, n), jnp.float32)}
    g, _ = run(cg.scale_by_learned_metric(power=1.0, damping=1e-9), [f])
    found = np.asarray(g[0]["kernel"]).reshape(-1, n)
    # P is I - (8/9) J / n up to a factor; so F P is rows @ (I - (2/3) J / n).
    expected = rows @ (np.eye(n) - 2 / 3 * mean)
    close(found / np.linalg.norm(found), expected / np.linalg.norm(expected))


@pytest.mark.parametrize("axes", [-2, (3, 2)])
def test_other_axes(axes):
    trees = [{"kernel": gradients(seed)["conv"]["kernel"]} for seed in range(3)]
    found, _ = run(cg.scale_by_learned_metric(every=2, axes=lambda path, leaf: axes), trees)
    fs = [np.asarray(tree["kernel"]) for tree in trees]
    if axes == -2:
        expected, *_ = reference(fs, every=2, axis=-2)
    else:
        flat = [np.moveaxis(f, (3, 2), (2, 3)).reshape(3, 3, -1) for f in fs]
        expected = [
            np.moveaxis(e.reshape(3, 3, N, 2), (2, 3), (3, 2)) for e in reference(flat, every=2)[0]
        ]
    for g, e in zip(found, expected, strict=True):
        close(g["kernel"], e)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_computed_in_float32(dtype):
    trees = [gradients(seed, dtype) for seed in range(3)]
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        found, state = run(cg.scale_by_learned_metric(power=lambda count: 0.5), trees)
    expected, moment, _ = reference([np.asarray(x["conv"]["kernel"], np.float64) for x in trees])
    assert found[-1]["conv"]["kernel"].dtype == dtype
    assert state.root["conv"]["kernel"].dtype == jnp.float32
    close(found[-1]["conv"]["kernel"], expected[-1], float(jnp.finfo(dtype).eps))
    close(state.second_moment["conv"]["kernel"], moment)


@pytest.mark.parametrize("argument", ["power", "decay", "damping"])
def test_schedules_directly_and_through_inject_hyperparams(argument):
    schedule = optax.linear_schedule(0.1, 0.4, 3)
    trees = [gradients(seed) for seed in range(4)]
    direct, _ = run(cg.scale_by_learned_metric(**{argument: schedule}, every=1), trees)
    inject = optax.inject_hyperparams(cg.scale_by_learned_metric)
    injected, state = run(inject(**{argument: schedule}, every=1), trees)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    constant, _ = run(cg.scale_by_learned_metric(**{argument: 0.1}, every=1), trees)
    for a, b in zip(direct, injected, strict=True):
        close(a["conv"]["kernel"], b["conv"]["kernel"])
    close(direct[0]["conv"]["kernel"], constant[0]["conv"]["kernel"])
    assert np.abs(direct[3]["conv"]["kernel"] - constant[3]["conv"]["kernel"]).max() > 1e-3


def test_optax_wraps_it():
    """Extra arguments, no params, MultiSteps, masked, partition, vmap, one compilation."""
    transform, trees = cg.scale_by_learned_metric(every=2), [gradients(s) for s in range(4)]
    compiled = 0

    @jax.jit
    def update(f, state):
        nonlocal compiled
        compiled += 1
        return transform.update(f, state, unexpected=jnp.ones(3))

    state = transform.init(jax.eval_shape(lambda: trees[0]))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    plain = []
    for tree in trees:
        g, state = update(tree, state)
        plain.append(g["conv"]["kernel"])
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == shapes
    assert compiled == 1

    several = optax.MultiSteps(transform, every_k_schedule=2)
    state = several.init(trees[0])
    for tree in (trees[0], trees[0], trees[1], trees[1]):
        g, state = several.update(tree, state, tree)
    close(g["conv"]["kernel"], np.asarray(plain[1]))

    both = [{"net": tree, "head": {"kernel": tree["conv"]["kernel"]}} for tree in trees[:2]]
    masked = optax.masked(transform, {"net": True, "head": False})
    found, _ = run(masked, both)
    close(found[1]["net"]["conv"]["kernel"], np.asarray(plain[1]))
    np.testing.assert_array_equal(found[1]["head"]["kernel"], both[1]["head"]["kernel"])
    split = optax.partition(
        {"learned": transform, "plain": optax.scale(2.0)}, {"net": "learned", "head": "plain"}
    )
    found, _ = run(split, both)
    close(found[1]["net"]["conv"]["kernel"], np.asarray(plain[1]))

    stacked = jax.tree.map(lambda *x: jnp.stack(x), *trees[:2])
    state = jax.vmap(transform.init)(stacked)
    g, _ = jax.jit(jax.vmap(transform.update))(stacked, state)
    close(g["conv"]["kernel"][0], np.asarray(plain[0]))


@pytest.mark.parametrize("tree", [{}, None, [None, {"kernel": jnp.ones((2, 2, 3))}]])
def test_empty_trees_and_none(tree):
    transform = cg.scale_by_learned_metric()
    g, state = transform.update(tree, transform.init(tree))
    assert jax.tree.structure(g) == jax.tree.structure(tree)
    assert state.count == 1


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-12, 1e12])
def test_zero_and_extreme_gradients(scale):
    """The result scales as the gradient; where even the squares vanish, it is the gradient."""
    tree = jax.tree.map(lambda x: scale * x, gradients(0))
    found, state = run(cg.scale_by_learned_metric(), [tree])
    f = np.asarray(gradients(0)["conv"]["kernel"])
    expected = f if scale in (0.0, 1e-30) else reference([f])[0][0]
    np.testing.assert_allclose(
        found[0]["conv"]["kernel"], scale * expected, rtol=1e-4, atol=1e-5 * scale * np.abs(f).max()
    )
    assert np.isfinite(state.root["conv"]["kernel"]).all()


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("spec", [(None, None, "x"), (None, None, None, "x")])
def test_eight_devices(kind, spec):
    """The input or the output channels divided: the numbers, and the layout, stay as they are."""
    rng = np.random.default_rng(0)
    fs = [rng.normal(size=(3, 3, 8, 16)).astype(np.float32) for _ in range(3)]
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    transform = cg.scale_by_learned_metric(every=2)
    trees = [{"kernel": jax.device_put(f, NamedSharding(mesh, P(*spec)))} for f in fs]
    with jax.set_mesh(mesh):
        found, _ = run(transform, trees)
    expected, *_ = reference(fs, every=2)
    for g, e in zip(found, expected, strict=True):
        close(g["kernel"], e)
        if kind == AxisType.Explicit:
            assert g["kernel"].sharding.spec[spec.index("x")] == "x"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"power": -1}, "power: got -1"),
        ({"decay": 1.0}, "decay: got 1.0; accepted: a number >= 0 and < 1"),
        ({"damping": 0}, "damping: got 0"),
        ({"every": 0}, "every: got 0"),
        ({"every": 1.5}, "every: got 1.5; accepted: an integer >= 1"),
        ({"axes": "output"}, "axes: got 'output'"),
    ],
)
def test_errors_come_when_the_transformation_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        cg.scale_by_learned_metric(**arguments)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.complex64])
def test_gradients_that_are_no_real_floats_are_refused_by_name(dtype):
    tree = {"kernel": jnp.ones((2, 2, 3), dtype)}
    transform = cg.scale_by_learned_metric()
    with pytest.raises(ValueError, match=r"updates: got dtype \w+ at the leaf \['kernel'\]"):
        transform.update(tree, transform.init(jax.tree.map(lambda x: x.real * 1.0, tree)))


def test_an_axis_whose_matrix_is_too_large_is_refused_by_name():
    tree = {"kernel": jax.ShapeDtypeStruct((3, 3, 64, 64), jnp.float32)}
    with pytest.raises(ValueError, match=r"axes: got an axis of 36864 .*at the leaf \['kernel'\]"):
        cg.scale_by_learned_metric(axes=cg.raster).init(tree)
