"""A spec that does nothing says so, and a table says what a spec does."""

import warnings

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import optax
import pytest

import channel_grad as cg

KEY = jax.random.key(0)
IMAGE = jnp.zeros((1, 5, 5, 3))


def haiku_tree():
    net = hk.transform(lambda x: hk.Linear(2)(hk.Conv2D(4, 3)(x)))
    return jax.eval_shape(net.init, KEY, IMAGE)


def equinox_tree():
    return eqx.filter(eqx.nn.Sequential([eqx.nn.Conv2d(3, 4, 3, key=KEY)]), eqx.is_array)


FLAX = {"Conv_0": {"kernel": jnp.zeros((3, 3, 3, 4)), "bias": jnp.zeros(4)}}
STACK = {"ScanBlock_0": {"Conv_0": {"kernel": jnp.zeros((2, 3, 3, 3, 4))}}}
TRANSPOSED = {"ConvTranspose_0": {"kernel": jnp.zeros((3, 3, 3, 4))}}
DENSE = {"Dense_0": {"kernel": jnp.zeros((3, 4))}}


@pytest.mark.parametrize(
    ("tree", "axes", "preset"),
    [
        (haiku_tree(), cg.output_axes, "channel_grad.haiku_layout.output_axes would select 1"),
        (equinox_tree(), cg.flax_layout, "channel_grad.equinox_layout.output_axes would select 1"),
        (FLAX, cg.equinox_layout, "channel_grad.flax_layout.output_axes would select 1"),
        (STACK, cg.output_axes, r"channel_grad.flax_layout.stacked\(0\).output_axes"),
        (TRANSPOSED, cg.output_axes, "channel_grad.flax_layout.transposed_output_axes"),
        (DENSE, cg.output_axes, "channel_grad.flax_layout.all_kernels would select 1"),
        ({"scale": jnp.zeros(3)}, cg.output_axes, "write a function"),
        (FLAX, None, "flax_layout.output_axes"),
        (FLAX, lambda path, leaf: None, "flax_layout.output_axes"),
    ],
    ids=["haiku", "equinox", "flax", "stack", "transposed", "dense", "none", "tree", "function"],
)
def test_a_spec_that_selects_nothing_warns_at_init(tree, axes, preset):
    with pytest.warns(UserWarning, match=f"(?s)selects none of the .*{preset}.*describe"):
        cg.scale_by_sobolev(axes=axes).init(tree)


def test_the_default_warns_on_haiku_and_equinox_trees_also_in_a_chain_and_under_jit():
    chain = optax.chain(cg.scale_by_laplacian_smoothing(), optax.sgd(0.1))
    for tree in (haiku_tree(), equinox_tree()):
        with pytest.warns(UserWarning, match="selects none"):
            jax.eval_shape(chain.init, tree)


def test_no_warning_where_something_is_selected_or_there_is_nothing_to_select():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cg.scale_by_sobolev().init(FLAX)
        for empty in ({}, None, optax.MaskedNode(), {"a": None}):
            cg.scale_by_sobolev().init(empty)


def test_describe():
    table = cg.describe({"a": FLAX, "b": DENSE, "c": TRANSPOSED})
    lines = str(table).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["leaf", "shape", "axis", "why"],
        "a/Conv_0/bias (4,) unchanged not named 'kernel'".split(),
        "a/Conv_0/kernel (3, 3, 3, 4) 3 convolution kernel".split(),
    ]
    assert "three axes or more, this one 2" in lines[3]
    assert "see channel_grad.flax_layout.transposed_output_axes" in lines[4]
    assert lines[5] == "channel_grad.output_axes changes the gradients of 1 of 4 leaves"
    assert repr(table) == str(table)
    assert [row.axes for row in table.rows] == [None, (3,), None, None]
    shapes = jax.eval_shape(lambda: FLAX)
    assert "convolution kernel" in str(cg.describe(shapes, axes=cg.flax_layout))


@pytest.mark.parametrize(
    ("axes", "why"),
    [
        (cg.output_axes.exclude("Conv"), "left out by exclude('Conv')"),
        (lambda path, leaf: -1, "the function's answer"),
        ({"Conv_0": -1}, "the entry for Conv_0"),
        (-1, "the entry for the whole tree"),
        (cg.flax_layout.stacked(0).output_axes, "no stack, as its bias has one axis"),
        (cg.haiku_layout, "not named 'w'"),
    ],
)
def test_describe_says_why(axes, why):
    assert why in str(cg.describe(FLAX, axes))
