"""Names of modules do not switch a metric off: shapes decide, on both sides with the same names."""

import copy
import pickle
import warnings

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import channel_grad as cg
from channel_grad._axes import path_string

KEY = jax.random.key(0)
IMAGE = jnp.zeros((1, 6, 6, 3))
NAMES = [
    "blocks",
    "layers",
    "stack",
    "scan",
    "scan_encoder",
    "scanner",
    "stacked",
    "vmap_net",
    "trunk",
]


def touched(spec, tree):
    axes = cg.AxisSpec(spec).resolve(tree)
    return {path_string(path): found for path, found in axes.items() if found is not None}


def linen(net, image=IMAGE):
    return jax.eval_shape(net.init, KEY, image)["params"]


class Convolutions(nn.Module):
    """Two convolutions; without biases, with the offset of a normalization beside them."""

    bias: bool = True
    spatial: int = 2

    @nn.compact
    def __call__(self, x, _=None):
        size = (3,) * self.spatial
        x = nn.Conv(3, size, use_bias=self.bias)(x)
        if not self.bias:
            x = nn.LayerNorm()(x)
        return nn.Conv(3, size, use_bias=self.bias, name="last")(x), None


@pytest.mark.parametrize("spatial", [2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_linen_a_module_and_a_stack_of_one_name(name, bias, spatial):
    class Net(nn.Module):
        module: type

        @nn.compact
        def __call__(self, x):
            return self.module(bias, spatial, name=name)(x)

    image = jnp.zeros((1, *(6,) * spatial, 3))
    found = touched(cg.output_axes, linen(Net(Convolutions), image))
    assert found == {f"{name}/{conv}/kernel": (spatial + 1,) for conv in ("Conv_0", "last")}
    stack = nn.scan(
        Convolutions, variable_axes={"params": 0}, split_rngs={"params": True}, length=4
    )
    tree = linen(Net(stack), image)
    if bias or name not in ("scanner", "trunk"):  # a name that says nothing, and no bias: unknown
        assert touched(cg.output_axes, tree) == {}
    found = touched(cg.flax_layout.stacked(0), tree)
    assert found == {f"{name}/{conv}/kernel": (spatial + 2,) for conv in ("Conv_0", "last")}


def test_linen_lists_and_classes_named_like_stacks():
    class ScanEncoder(nn.Module):
        def setup(self):
            self.blocks = nn.Sequential([nn.Conv(4, (3, 3)), nn.relu, nn.Conv(5, (3, 3))])
            self.layers = [nn.Conv(4, (3, 3)), nn.Conv(4, (3, 3, 3))]
            self.line = nn.Sequential([nn.Conv(5, (3,))])

        def __call__(self, x):
            x = self.layers[0](self.blocks(x))
            return self.line(self.layers[1](x[:, None])[:, 0, 0])

    class StackedHourglass(nn.Module):
        @nn.compact
        def __call__(self, x):
            return ScanEncoder()(x)

    found = touched(cg.output_axes, {"StackedHourglass_0": linen(StackedHourglass())})
    top = "StackedHourglass_0/ScanEncoder_0"
    assert found == {
        f"{top}/blocks/layers_0/kernel": (3,),
        f"{top}/blocks/layers_2/kernel": (3,),
        f"{top}/layers_0/kernel": (3,),
        f"{top}/layers_1/kernel": (4,),
        f"{top}/line/layers_0/kernel": (2,),
    }


def test_convolutions_without_any_bias():
    """Two-dimensional ones in a list or a plain container; a stack's own name still counts."""
    kernel = {"kernel": jnp.zeros((3, 3, 3, 8))}
    deep = {"kernel": jnp.zeros((4, 3, 3, 2, 8))}
    tree = {
        "blocks": {"layers_0": kernel, "stem": kernel},
        "layers": [kernel, deep],
        "stack": {"layers_0": deep},
        "ScanBlock_0": {"Conv_0": deep},
        "VmapConv_0": kernel,
        "body": {"layers": {"stem": deep}},
    }
    assert touched(cg.output_axes, tree) == {
        "blocks/layers_0/kernel": (3,),
        "blocks/stem/kernel": (3,),
        "layers/0/kernel": (3,),
        "layers/1/kernel": (4,),
        "stack/layers_0/kernel": (4,),
    }


@pytest.mark.parametrize("name", ["layers", "blocks", "scan_net"])
def test_nnx_a_sequence_and_a_stack_of_one_name(name):
    class Net(nnx.Module):
        def __init__(self, part):
            setattr(self, name, part)

    def sequence():
        rngs = nnx.Rngs(0)
        convs = [nnx.Conv(3, 3, (3, 3), rngs=rngs), nnx.Conv(3, 3, (3, 3, 3), rngs=rngs)]
        return Net(nnx.Sequential(*convs))

    @nnx.vmap
    def stacked(key):
        return nnx.Conv(3, 3, (3, 3), rngs=nnx.Rngs(key))

    tree = nnx.state(nnx.eval_shape(sequence), nnx.Param)
    assert sorted(touched(cg.nnx_layout, tree).values()) == [(3,), (4,)]
    net = nnx.eval_shape(lambda: Net(stacked(jax.random.split(KEY, 4))))
    tree = nnx.state(net, nnx.Param)
    assert touched(cg.nnx_layout, tree) == {}
    assert touched(cg.nnx_layout.stacked(0), tree) == {f"{name}/kernel": (4,)}


def test_nnx_transposed_convolutions_under_any_name():
    """Only the length of the bias says which axis holds the output channels."""

    def net(transpose_kernel):
        return nnx.Dict(
            up=nnx.ConvTranspose(3, 5, (3, 3), transpose_kernel=transpose_kernel, rngs=nnx.Rngs(0))
        )

    tree = nnx.state(nnx.eval_shape(lambda: net(True)), nnx.Param)
    assert touched(cg.nnx_layout, tree) == {}
    assert "transposed convolution, by the length" in str(cg.describe(tree, cg.nnx_layout))
    assert touched(cg.nnx_layout.transposed_output_axes, tree) == {"up/kernel": (2,)}
    assert touched(cg.nnx_layout.transposed_input_axes, tree) == {"up/kernel": (3,)}
    tree = nnx.state(nnx.eval_shape(lambda: net(False)), nnx.Param)
    assert touched(cg.nnx_layout, tree) == {"up/kernel": (3,)}


def test_linen_transposed_convolutions_in_both_orders():
    for transpose_kernel, output in ((True, 2), (False, 3)):
        net = nn.ConvTranspose(5, (3, 3), transpose_kernel=transpose_kernel)
        tree = {"ConvTranspose_0": linen(net)}
        assert touched(cg.output_axes, tree) == {}
        name = "ConvTranspose_0/kernel"
        assert touched(cg.flax_layout.transposed_output_axes, tree) == {name: (output,)}
        assert touched(cg.flax_layout.transposed_input_axes, tree) == {name: (5 - output,)}


def test_torch_modules_and_functional_stacks():
    """The keys of a state_dict, and of torch.func.stack_module_state."""
    names = ["layers.conv1", "blocks.0.proj", "stack.embed", "scan.out", "features.3"]
    kernels = [(8, 3, 3, 3), (8, 3, 16, 16), (8, 3, 2, 2, 2), (8, 3, 5), (8, 3, 5)]
    tree = {}
    for name, shape in zip(names, kernels, strict=True):
        tree |= {f"{name}.weight": np.zeros(shape), f"{name}.bias": np.zeros(8)}
    tree |= {"layers.norm.weight": np.zeros((8, 4, 4)), "layers.norm.bias": np.zeros((8, 4, 4))}
    assert touched(cg.torch_layout, tree) == {f"{name}.weight": (0,) for name in names}
    stacked = {name: np.zeros((4, *leaf.shape)) for name, leaf in tree.items()}
    assert touched(cg.torch_layout, stacked) == {}
    up = {"up.weight": np.zeros((3, 8, 2, 2)), "up.bias": np.zeros(8)}
    assert touched(cg.torch_layout, up) == {}
    assert touched(cg.torch_layout.transposed_output_axes, up) == {"up.weight": (1,)}


def test_haiku_modules_and_layer_stack():
    def blocks(x):
        class Blocks(hk.Module):
            def __call__(self, x):
                return hk.Conv1D(2, 3)(hk.Conv2D(5, 3, with_bias=False)(hk.Conv2D(4, 3)(x))[0])

        return Blocks(name="blocks")(x)

    def stack(x):
        return hk.experimental.layer_stack(2, name="blocks")(lambda x: hk.Conv2D(3, 3)(x))(x)

    tree = jax.eval_shape(hk.transform(blocks).init, KEY, IMAGE)
    axes = {"conv2_d": (3,), "conv2_d_1": (3,), "conv1_d": (2,)}
    assert touched(cg.haiku_layout, tree) == {f"blocks/{k}/w": v for k, v in axes.items()}
    tree = jax.eval_shape(hk.transform(stack).init, KEY, IMAGE)
    assert [leaf.ndim for leaf in jax.tree.leaves(tree)] == [2, 5]
    assert touched(cg.haiku_layout, tree) == {}


def test_equinox_lists_and_vmapped_modules():
    def conv(key):
        return eqx.nn.Conv2d(3, 4, 3, key=key)

    class Net(eqx.Module):
        layers: object

    for layers, expected in (
        (lambda: [conv(KEY), eqx.nn.ConvTranspose2d(4, 3, 3, key=KEY)], {"layers/0/weight": (0,)}),
        (lambda: eqx.nn.Sequential([conv(KEY)]), {"layers/layers/0/weight": (0,)}),
        (lambda: eqx.filter_vmap(conv)(jax.random.split(KEY, 2)), {}),
    ):
        tree = eqx.filter_eval_shape(lambda layers=layers: Net(layers()))
        tree = eqx.filter(tree, lambda leaf: hasattr(leaf, "shape"))
        assert touched(cg.equinox_layout, tree) == expected


@pytest.mark.parametrize(
    ("name", "shape", "bias", "axis"),
    [
        ("proj", (4, 4, 2, 8), None, None),  # DenseGeneral without a bias, for all one can see
        ("proj", (4, 4, 2, 8), (8,), (3,)),  # patches of a vision transformer
        ("embedding", (16, 16, 3, 8), (8,), (3,)),
        ("proj", (6, 4, 2, 8), (4, 2, 8), None),
        ("conv_proj", (4, 4, 2, 8), None, (3,)),
        ("DenseGeneral_0", (4, 4, 2, 8), (8,), None),
        ("query", (4, 4, 2, 8), (8,), None),
        ("shortcut", (1, 1, 2, 8), None, (3,)),
        ("merge", (2, 4, 8), (8,), None),  # attention's output, or a 1D convolution
        ("stem", (3, 3, 2, 8), (7,), None),  # no axis of output channels is as long
    ],
)
def test_kernels_beside_attention(name, shape, bias, axis):
    layer = {"kernel": jnp.zeros(shape)} | ({"bias": jnp.zeros(bias)} if bias else {})
    tree = {name: layer, "Conv_0": {"kernel": jnp.zeros((3, 3, 2, 4))}}
    assert touched(cg.output_axes, tree).get(f"{name}/kernel") == axis
    looks_like_one = axis is None and len(shape) == 4 and bias is not None and len(bias) == 1
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cg.scale_by_sobolev().init(tree)
    assert len(caught) == looks_like_one
    if looks_like_one:
        assert f"leaves alone 1 kernels that look like those of convolutions: {name}/kernel" in str(
            caught[0].message
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cg.scale_by_sobolev(axes=cg.output_axes.exclude(f"^{name}/")).init(tree)
            other = cg.AxisSpec({name: -1, "Conv_0": None})
            cg.scale_by_sobolev(axes=cg.output_axes | other).init({name: layer})


def test_attention_above_a_convolution_with_a_bias():
    kernel, bias = jnp.zeros((3, 3, 2, 8)), jnp.zeros(8)
    tree = {"attention": {"stem": {"kernel": kernel, "bias": bias}, "gate": {"kernel": kernel}}}
    assert touched(cg.output_axes, tree) == {"attention/stem/kernel": (3,)}


def seven(path, leaf):
    return -1 if leaf.ndim == 4 else None


@pytest.mark.parametrize(
    "spec",
    [
        cg.output_axes,
        cg.flax_layout.stacked(0).raster.only("Scan") | cg.all_kernels.exclude("head"),
        cg.AxisSpec(seven).at_least(8),
        cg.AxisSpec({"net": -1}),
        cg.AxisSpec(-1),
    ],
    ids=["preset", "combined", "function", "tree", "integer"],
)
def test_specs_are_pickled_and_copied(spec):
    tree = {"net": {"kernel": jnp.zeros((3, 3, 2, 8)), "bias": jnp.zeros(8)}}
    for again in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert repr(again) == repr(spec)
        assert touched(again, tree) == touched(spec, tree)


def test_the_state_of_inject_hyperparams_is_pickled():
    transform = optax.inject_hyperparams(cg.scale_by_sobolev)(lam=lambda count: 1.0 + count)
    f = {"kernel": jnp.ones((3, 3, 2, 4))}
    state = transform.init(f)
    again = pickle.loads(pickle.dumps(state))
    assert jax.tree.structure(again) == jax.tree.structure(state)
    jax.tree.map(np.testing.assert_array_equal, again, state)


def test_a_callable_tree_of_axes_goes_through_inject_hyperparams_as_axis_spec():
    """optax would call the model itself with the step count."""
    model = eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 3, key=KEY)])
    axes = jax.tree.map(lambda leaf: 0 if getattr(leaf, "ndim", 0) == 4 else None, model)
    params = eqx.filter(model, eqx.is_array)
    transform = optax.inject_hyperparams(cg.scale_by_reweighted_l2)(
        lam=lambda count: 1.0, axes=cg.AxisSpec(axes)
    )
    g, _ = jax.jit(transform.update)(params, transform.init(params))
    f = np.asarray(params.layers[0].weight)
    np.testing.assert_allclose(g.layers[0].weight, f + f.mean(axis=0), atol=1e-6)
