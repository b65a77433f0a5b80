"""The presets on what looks like a convolution and is not, and on convolutions of other kinds."""

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import channel_grad as cg
from channel_grad._axes import path_string

KEY = jax.random.key(0)
IMAGE = jnp.zeros((1, 6, 6, 3))


def touched(spec, tree):
    """The leaves that a spec selects: path -> axes."""
    axes = cg.AxisSpec(spec).resolve(tree)
    return {path_string(path): found for path, found in axes.items() if found is not None}


def shapes(init, *arguments):
    """Shapes of parameters, without computing them."""
    return jax.eval_shape(init, KEY, *arguments)["params"]


class LinenOthers(nn.Module):
    """Kernels of rank 3 and more that are not convolutions, and one 1D convolution."""

    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(num_heads=2, use_bias=False)(x, x)
        x = nn.DenseGeneral((2, 2, 3), name="split")(x)
        x = nn.DenseGeneral(4, axis=(-3, -2, -1), use_bias=False)(x)
        x = nn.LayerNorm(reduction_axes=(-2, -1), feature_axes=(-2, -1))(x)
        return nn.Conv(5, (3,), name="conv")(x)


def test_attention_and_general_dense_layers_of_linen():
    tree = shapes(LinenOthers().init, jnp.zeros((1, 4, 4)))
    assert max(len(leaf.shape) for leaf in jax.tree.leaves(tree)) == 4
    assert touched(cg.output_axes, tree) == {"conv/kernel": (2,)}
    assert touched(cg.input_axes, tree) == {"conv/kernel": (1,)}
    assert touched(cg.raster, tree) == {"conv/kernel": (2, 1, 0)}
    assert touched(cg.all_kernels, tree) == {"conv/kernel": (2,)}


def test_attention_of_nnx():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.mixer = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
            self.qkv = nnx.LinearGeneral(4, (3, 2, 2), rngs=rngs, use_bias=False)
            self.stem = nnx.Conv(4, 4, (3, 3), rngs=rngs)

    tree = nnx.state(nnx.eval_shape(lambda: Net(nnx.Rngs(0))), nnx.Param)
    assert touched(cg.output_axes, tree) == {"stem/kernel": (3,)}


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = nn.Conv(3, (3, 3))(x)
        return nn.Dense(3)(x), None


@pytest.mark.parametrize("layers", [0, -1])
@pytest.mark.parametrize("name", [None, "layers", "body"])
def test_stacks_of_linen(layers, name):
    """Left alone by the default, whatever their name, because their biases are stacks, too."""
    stack = nn.scan(Block, variable_axes={"params": layers}, split_rngs={"params": True}, length=4)
    tree = shapes(stack(name=name).init, IMAGE)
    assert touched(cg.output_axes, tree) == {}
    (only,) = touched(cg.flax_layout.stacked(layers).output_axes, tree).items()
    assert only[0].endswith("Conv_0/kernel") and only[1] == (4 if layers == 0 else 3,)
    (only,) = touched(cg.flax_layout.stacked(layers).raster, tree).values()
    assert only == ((4, 3, 1, 2) if layers == 0 else (3, 2, 0, 1))
    every = touched(cg.flax_layout.stacked(layers).all_kernels, tree)
    assert len(every) == 2


def test_stacked_gradient_is_that_of_each_layer():
    f = np.random.default_rng(0).normal(size=(4, 3, 3, 2, 8)).astype(np.float32)
    tree = {"ScanBlock_0": {"Conv_0": {"kernel": f}}}
    transform = cg.scale_by_sobolev(axes=cg.flax_layout.stacked(0).raster)
    g, _ = transform.update(tree, transform.init(tree))
    for layer in range(4):
        alone = cg.Sobolev().gradient(f[layer], (3, 2, 0, 1))
        np.testing.assert_allclose(g["ScanBlock_0"]["Conv_0"]["kernel"][layer], alone, atol=1e-5)


def test_vmapped_and_scanned_layers_without_bias():
    """Names tell here: nn.vmap and nn.scan put themselves into them."""
    dense = nn.vmap(nn.Dense, variable_axes={"params": 0}, split_rngs={"params": True})
    tree = shapes(dense(3, use_bias=False).init, jnp.zeros((4, 3)))
    assert tree["kernel"].shape == (4, 3, 3)
    assert touched(cg.output_axes, {"VmapDense_0": tree}) == {}
    conv = {"kernel": jnp.zeros((4, 3, 3, 2, 5))}
    assert touched(cg.output_axes, {"ScanBlock_0": {"Conv_0": conv}}) == {}
    assert touched(cg.output_axes, {"layers": {"stem": conv}}) == {}
    # A list of layers, and a 3D convolution.
    assert touched(cg.output_axes, {"layers": [{"stem": conv}]}) == {"layers/0/stem/kernel": (4,)}


def test_equinox_modules_say_what_they_are():
    keys = jax.random.split(KEY, 5)

    class Net(eqx.Module):
        first: eqx.Module
        stack: eqx.Module
        dense: eqx.Module
        norm: eqx.Module
        mixer: eqx.Module
        line: eqx.Module

        def __init__(self):
            self.first = eqx.nn.Conv3d(3, 4, 3, key=keys[0])
            make = eqx.filter_vmap(lambda key: eqx.nn.Conv2d(4, 5, 3, key=key))
            self.stack = make(jax.random.split(keys[1], 2))
            dense = eqx.filter_vmap(lambda key: eqx.nn.Linear(4, 5, key=key))
            self.dense = dense(jax.random.split(keys[2], 2))
            self.norm = eqx.nn.LayerNorm((4, 3, 3))
            self.mixer = eqx.nn.MultiheadAttention(2, 4, key=keys[3])
            self.line = eqx.nn.ConvTranspose1d(3, 6, 3, key=keys[4])

    tree = eqx.filter(eqx.filter_eval_shape(Net), lambda leaf: hasattr(leaf, "shape"))
    layout = cg.equinox_layout
    assert touched(layout.output_axes, tree) == {"first/weight": (0,)}
    assert touched(layout.transposed_output_axes, tree) == {"line/weight": (0,)}
    assert tree.line.weight.shape[0] == 6
    stacked = layout.stacked(0).output_axes | layout.output_axes
    assert touched(stacked, tree) == {"first/weight": (0,), "stack/weight": (1,)}


def test_haiku_attention_stacks_and_transposed_convolutions():
    def net(x):
        x = hk.Conv2D(4, 3)(x)
        x = hk.Conv2DTranspose(5, 3)(x)
        x = hk.experimental.layer_stack(2)(lambda x: hk.Conv2D(5, 3, name="inner")(x))(x)
        x = hk.experimental.layer_stack(2)(lambda x: hk.Linear(5)(x))(x)
        x = x.reshape(1, -1, 5)
        return hk.MultiHeadAttention(2, 3, w_init=hk.initializers.Constant(0.0))(x, x, x)

    tree = jax.eval_shape(hk.transform(net).init, KEY, IMAGE)
    assert touched(cg.haiku_layout, tree) == {"conv2_d/w": (3,)}
    assert touched(cg.haiku_layout.transposed_output_axes, tree) == {"conv2_d_transpose/w": (2,)}
    assert tree["conv2_d_transpose"]["w"].shape == (3, 3, 5, 4)
    (only,) = touched(cg.haiku_layout.stacked(0).output_axes.only("stack"), tree).values()
    assert only == (4,)


def test_transposed_convolutions_of_flax_and_torch():
    """flax_layout speaks of transpose_kernel=True; without it, another Layout does."""
    net = nn.ConvTranspose(5, (3, 3), transpose_kernel=True)
    tree = {"ConvTranspose_0": shapes(net.init, IMAGE)}
    assert tree["ConvTranspose_0"]["kernel"].shape == (3, 3, 5, 3)
    assert touched(cg.output_axes, tree) == {}
    name = "ConvTranspose_0/kernel"
    assert touched(cg.flax_layout.transposed_output_axes, tree) == {name: (2,)}
    assert touched(cg.flax_layout.transposed_input_axes, tree) == {name: (3,)}
    plain = cg.Layout("kernel", output=-1, input=-2)
    assert touched(plain.transposed_output_axes, tree) == {name: (3,)}
    torch = {"deconv1.weight": np.zeros((3, 5, 3, 3)), "conv1.weight": np.zeros((4, 3, 3, 3))}
    assert touched(cg.torch_layout.transposed_output_axes, torch) == {"deconv1.weight": (1,)}
    assert touched(cg.torch_layout.output_axes, torch) == {"conv1.weight": (0,)}


def test_presets_can_be_called_and_combined():
    kernel = jnp.zeros((3, 3, 2, 8))
    tree = {
        "attention": {"stem": {"kernel": kernel}, "conv": {"kernel": kernel}},
        "conv1": {"kernel": kernel, "bias": jnp.zeros(8)},
        "head": {"kernel": jnp.zeros((8, 2))},
    }
    paths = {path_string(path): path for path, _ in jax.tree_util.tree_leaves_with_path(tree)}
    assert cg.output_axes.axis(paths["conv1/kernel"], kernel) == -1
    assert cg.output_axes.axis(paths["conv1/bias"], tree["conv1"]["bias"]) is None
    assert cg.raster.axis(paths["conv1/kernel"], kernel) == (3, 2, 0, 1)
    assert touched(cg.output_axes, tree) == {"attention/conv/kernel": (3,), "conv1/kernel": (3,)}
    assert touched(cg.output_axes.exclude(r"attention"), tree) == {"conv1/kernel": (3,)}
    assert touched(cg.output_axes.only(r"^att"), tree) == {"attention/conv/kernel": (3,)}
    assert touched(cg.output_axes.only("conv").exclude("1"), tree) == {
        "attention/conv/kernel": (3,)
    }
    both = cg.input_axes.only("conv1") | cg.all_kernels | (lambda path, leaf: 0)
    assert touched(both, tree) == {
        "attention/conv/kernel": (3,),
        "attention/stem/kernel": (0,),
        "conv1/bias": (0,),
        "conv1/kernel": (2,),
        "head/kernel": (1,),
    }
    matrices = cg.AxisSpec(lambda path, leaf: 0 if leaf.ndim == 2 else None)
    assert touched(cg.flax_layout.output_axes.exclude("a") | matrices, tree)["head/kernel"] == (0,)
    for pattern in ("(", None):
        with pytest.raises(ValueError, match="pattern: got .*a regular expression"):
            cg.output_axes.only(pattern)


def test_a_layout_stands_for_its_output_axes():
    tree = {"conv": {"w": jnp.zeros((3, 3, 2, 8))}}
    assert touched(cg.haiku_layout, tree) == {"conv/w": (3,)}
    f = {"conv": {"w": jnp.ones((3, 3, 2, 8))}}
    transform = cg.scale_by_reweighted_l2(axes=cg.haiku_layout)
    g, _ = transform.update(f, transform.init(f))
    np.testing.assert_array_equal(g["conv"]["w"], 2.0)
    assert repr(cg.haiku_layout.output_axes) == "channel_grad.haiku_layout.output_axes"
    mine = cg.Layout(kernel="filters", output=0, input=-1)
    assert repr(mine) == "Layout(kernel='filters', output=0, input=-1)"


def test_the_models_of_the_experiments_are_touched_as_before():
    """Names given by Linen and by hand: every kernel of rank 4 and 5 of a plain network."""
    tree = {"Conv_0": {"kernel": jnp.zeros((3, 3, 3, 3, 4)), "bias": jnp.zeros(4)}}
    tree["shortcut"] = {"kernel": jnp.zeros((1, 1, 4, 8))}
    tree["Dense_0"] = {"kernel": jnp.zeros((8, 2))}
    assert touched(cg.output_axes, tree) == {"Conv_0/kernel": (4,), "shortcut/kernel": (3,)}
    # A layer by itself has no name.
    assert touched(cg.output_axes, {"kernel": jnp.zeros((3, 4, 8)), "bias": jnp.zeros(8)}) == {
        "kernel": (2,)
    }
    general = {"kernel": jnp.zeros((4, 2, 3)), "bias": jnp.zeros((2, 3))}
    assert touched(cg.output_axes, general) == {}
