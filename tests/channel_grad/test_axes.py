"""Axis specs, on the trees of the libraries themselves."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import optax
import pytest
from flax import nnx

import channel_grad as cg

IMAGE = jnp.zeros((1, 5, 5, 3))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3))(x)
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.Dense(2)(x)


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.dense = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.dense(self.conv(x))


def linen_tree():
    return LinenNet().init(jax.random.key(0), IMAGE)["params"]


def nnx_state():
    return nnx.state(NnxNet(nnx.Rngs(0)), nnx.Param)


def nnx_gradient():
    return nnx.grad(lambda net: jnp.sum(net(IMAGE)))(NnxNet(nnx.Rngs(0)))


def nnx_pure():
    make = getattr(nnx, "as_pure", None) or nnx.to_pure_dict  # as_pure: Flax 0.12.7
    return make(nnx_state())


def equinox_tree():
    keys = jax.random.split(jax.random.key(0))
    net = eqx.nn.Sequential(
        [
            eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
            eqx.nn.Lambda(jax.nn.relu),
            eqx.nn.Linear(4, 2, key=keys[1]),
        ]
    )
    return eqx.filter(net, eqx.is_array)


def haiku_tree():
    net = hk.transform(lambda x: hk.Linear(2)(hk.Conv2D(4, 3)(x)))
    return net.init(jax.random.key(0), IMAGE)


def torch_tree():
    return {
        "conv1.weight": np.zeros((4, 3, 3, 3), np.float32),
        "conv1.bias": np.zeros(4, np.float32),
        "fc.weight": np.zeros((2, 4), np.float32),
    }


TREES = [
    (linen_tree, cg.flax_layout),
    (nnx_state, cg.nnx_layout),
    (nnx_gradient, cg.nnx_layout),
    (nnx_pure, cg.nnx_layout),
    (equinox_tree, cg.equinox_layout),
    (haiku_tree, cg.haiku_layout),
    (torch_tree, cg.torch_layout),
]
IDS = [make.__name__ for make, _ in TREES]


def resolved(spec, tree):
    """The sizes of the axes that the spec names, for the leaves that it names."""
    axes = cg.AxisSpec(spec).resolve(tree)
    shapes = {path: np.shape(leaf) for path, leaf in jtu.tree_leaves_with_path(tree)}
    assert axes.keys() == shapes.keys()
    return sorted(
        tuple(shapes[path][axis] for axis in found) for path, found in axes.items() if found
    )


@pytest.mark.parametrize(("make", "layout"), TREES, ids=IDS)
def test_presets_on_real_trees(make, layout):
    """A 3x3 convolution from 3 to 4 channels and a dense layer from 4 to 2, and nothing else."""
    tree = make()
    assert resolved(layout.output_axes, tree) == [(4,)]
    assert resolved(layout.input_axes, tree) == [(3,)]
    assert resolved(layout.all_kernels, tree) == [(2,), (4,)]
    assert resolved(layout.raster, tree) == [(4, 3, 3, 3)]


@pytest.mark.parametrize(("make", "layout"), TREES, ids=IDS)
def test_transformation_on_real_trees(make, layout):
    """The convolution's gradient is that of the metric, all else is what came, in the same tree."""
    tree = make()
    keys = iter(jax.random.split(jax.random.key(1), len(jax.tree.leaves(tree))))
    f = jax.tree.map(lambda leaf: jax.random.normal(next(keys), leaf.shape), tree)
    transform = cg.scale_by_sobolev(axes=layout.output_axes)
    g, _ = transform.update(f, transform.init(tree))
    assert jax.tree.structure(g) == jax.tree.structure(f)
    for before, after in zip(jax.tree.leaves(f), jax.tree.leaves(g), strict=True):
        if before.ndim == 4:
            axis = before.shape.index(4)
            np.testing.assert_array_equal(after, cg.Sobolev().gradient(before, axis))
        else:
            assert after is before


def test_presets_at_the_top_are_those_of_flax():
    tree = linen_tree()
    for name in ("output_axes", "input_axes", "all_kernels", "raster"):
        ours, layouts = (
            cg.AxisSpec(spec).resolve(tree)
            for spec in (getattr(cg, name), getattr(cg.flax_layout, name))
        )
        assert ours == layouts
        assert name in repr(getattr(cg, name))


def test_default_leaves_dense_kernels_and_convolution_biases_alone():
    axes = cg.output_axes.resolve(linen_tree())
    touched = [jtu.keystr(path) for path, found in axes.items() if found]
    assert touched == ["['Conv_0']['kernel']"]


def test_raster_goes_output_input_height_width():
    """Rasterising a Flax kernel is what figure 10 does to the (O, I, H, W) tensor of PyTorch."""
    f = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
    metric = cg.LaplacianSmoothing(1.0)
    transform = cg.scale_by_metric(metric, cg.raster)
    g, _ = transform.update({"kernel": f}, transform.init({"kernel": f}))
    oihw = f.transpose(3, 2, 0, 1)
    expected = metric.gradient(oihw.reshape(-1)).reshape(oihw.shape).transpose(2, 3, 1, 0)
    np.testing.assert_allclose(g["kernel"], expected, rtol=1e-6)
    # In memory order, output channels would be neighbours: another method.
    assert np.abs(metric.gradient(f.reshape(-1)).reshape(f.shape) - expected).max() > 0.1


TREE = {"a": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}, "b": (np.ones((4, 5)), None)}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (-1, [(3,), (3,), (5,)]),
        (None, []),
        ({"a": {"kernel": -1, "bias": None}, "b": (0, None)}, [(3,), (4,)]),
        ({"a": None, "b": -1}, [(5,)]),
        ({"a": None, "b": (1, 0)}, [(5, 4)]),
        (lambda path, leaf: (1, 0) if leaf.ndim == 2 else None, [(3, 2), (5, 4)]),
        (cg.AxisSpec(cg.AxisSpec({"a": None, "b": np.int64(0)})), [(4,)]),
    ],
    ids=["integer", "none", "tree", "prefix", "tuple", "function", "nested"],
)
def test_kinds_of_specs(spec, expected):
    assert resolved(spec, TREE) == expected


def test_tree_of_axes_that_is_callable_itself():
    tree = equinox_tree()
    axes = jax.tree.map(lambda leaf: 0 if leaf.ndim == 4 else None, tree)
    assert callable(axes)
    assert resolved(axes, tree) == [(4,)]


def test_tree_of_axes_where_branches_are_masked_out():
    f = {"a": {"kernel": jnp.ones((2, 3))}, "b": {"kernel": jnp.ones((2, 3))}}
    axes = {"a": {"kernel": -1}, "b": {"kernel": -1}}
    transform = optax.masked(cg.scale_by_reweighted_l2(axes=axes), {"a": True, "b": False})
    g, _ = transform.update(f, transform.init(f))
    np.testing.assert_array_equal(g["a"]["kernel"], 2.0)
    np.testing.assert_array_equal(g["b"]["kernel"], 1.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"a": 1, "b": 0}, r"\['a'\]\['bias'\] of shape \(3,\); accepted: axes from -1 to 0"),
        (lambda path, leaf: (0, -2) if leaf.ndim == 2 else None, r"\['a'\]\['kernel'\].*once"),
        (lambda path, leaf: "output", r"'output' for the leaf \['a'\]\['bias'\].*an integer"),
        (lambda path, leaf: (), r"\(\) for the leaf"),
        (lambda path, leaf: True, "True for the leaf"),
        (1.5, "axes: got 1.5; accepted: an integer"),
        ({"a": "output", "b": None}, "axes: got 'output'; accepted"),
        ({"a": -1}, r"no entry for the leaf \['b'\]\[0\].*only for a"),
        (jnp.asarray(-1), r"array.*AxisSpec\(-1\)"),
    ],
    ids=["missing", "twice", "string", "empty", "bool", "float", "name", "no-entry", "array"],
)
def test_errors_name_the_leaf(spec, message):
    with pytest.raises(ValueError, match=message):
        cg.scale_by_sobolev(axes=spec).init(TREE)
    with pytest.raises(ValueError, match=message):
        cg.scale_by_sobolev(axes=spec).update(TREE, optax.EmptyState())


def test_scalar_leaf():
    with pytest.raises(ValueError, match=r"\['scale'\] of shape \(\); accepted: None"):
        cg.scale_by_sobolev(axes=-1).init({"scale": jnp.ones(())})
    assert cg.all_kernels.resolve({"kernel": 1.0}) == {(jtu.DictKey("kernel"),): None}
    assert cg.output_axes.resolve(jnp.ones((2, 2, 2))) == {(): None}
