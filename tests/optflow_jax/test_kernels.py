"""Kernels of networks: collapse, the regularizer of a kernel and of a tree, a training step."""

import functools

import equinox as eqx
import flax.linen as nn
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import optflow_jax

# Only test_solvers.py tests the solvers; "cg" compiles in half the time of "auto".
cost = functools.partial(optflow_jax.cost, solver="cg")
regularizer = functools.partial(optflow_jax.regularizer, solver="cg")
tree_regularizer = functools.partial(optflow_jax.tree_regularizer, solver="cg")


def _kernel(*shape):
    return np.random.RandomState(0).randn(*shape).astype(np.float32)


def test_collapse():
    kernel = _kernel(2, 3, 4, 3, 5)
    weights = {
        "mean": [1 / 3] * 3,
        "rgb": [0.2989, 0.5870, 0.1140],
        "bgr": [0.1140, 0.5870, 0.2989],
    }
    for channels, values in weights.items():
        expected = np.moveaxis(kernel, -1, 0)
        expected = np.tensordot(expected, np.array(values), axes=([4], [0]))
        np.testing.assert_allclose(
            optflow_jax.collapse(kernel, channels), expected, rtol=1e-5, atol=1e-6
        )
        by_weights = optflow_jax.collapse(kernel, jnp.asarray(values))
        np.testing.assert_allclose(by_weights, expected, rtol=1e-5, atol=1e-6)
    assert optflow_jax.collapse(jnp.asarray(kernel, jnp.bfloat16)).dtype == jnp.bfloat16


def test_regularizer_is_the_mean_of_the_costs():
    kernel = _kernel(2, 3, 4, 3, 5)
    filters = optflow_jax.collapse(kernel, "rgb")
    expected = cost(filters, alpha=0.5, temporal=False).mean()
    got = regularizer(kernel, channels="rgb", alpha=0.5, temporal=False)
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_solved_in_float32(dtype):
    kernel = jnp.asarray(_kernel(2, 3, 4, 1, 5), dtype)
    filters = optflow_jax.collapse(kernel.astype(jnp.float32))
    expected, slope = jax.value_and_grad(lambda w: cost(w).sum())(filters)
    half = filters.astype(dtype)
    got, gradient = jax.value_and_grad(lambda w: cost(w).astype(jnp.float32).sum())(half)
    assert cost(half).dtype == gradient.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=2 * jnp.finfo(dtype).eps)
    np.testing.assert_array_equal(gradient, slope.astype(dtype))
    flow = optflow_jax.flow(half, solver="cg")
    assert flow.u.dtype == flow.v.dtype == flow.residual.dtype == flow.cost.dtype == dtype
    assert regularizer(kernel).dtype == dtype


class _ConvNet(nn.Module):
    """Two 3D convolutions and a dense layer."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(6, (3, 5, 5))(x))
        x = nn.relu(nn.Conv(4, (3, 3, 3), strides=(1, 2, 2))(x))
        return nn.Dense(2)(x.reshape(len(x), -1))


@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_a_regularized_training_step(solver):
    model = _ConvNet()
    clips = jnp.asarray(_kernel(4, 4, 8, 8, 3))
    labels = jnp.array([0, 1, 0, 1])
    params = model.init(jax.random.key(0), clips)["params"]
    optimizer = optax.sgd(0.05)

    def penalty(params):
        kernel = params["Conv_0"]["kernel"]
        return regularizer(kernel, channels="rgb", solver=solver)

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = model.apply({"params": params}, clips)
            data = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return data + 10 * penalty(params), penalty(params)

        (_, value), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state = optimizer.init(params)
    compiled = step.lower(params, state).compile()
    assert "callback" not in compiled.as_text()
    values = []
    for _ in range(4):
        params, state, value = compiled(params, state)
        values.append(float(value))
    assert np.all(np.diff(values) < 0)
    assert values[-1] < 0.9 * values[0]


def test_the_sparse_direct_solver_does_call_back_on_cpu():
    """That the test above can fail: JAX itself calls SciPy for `spsolve` on a CPU."""
    filters = jnp.ones((2, 2, 2, 3))
    text = jax.jit(lambda w: optflow_jax.cost(w, solver="sparse_direct")).lower(filters).as_text()
    assert "callback" in text


def _params():
    return {
        "Conv_0": {"kernel": _kernel(2, 3, 3, 3, 4), "bias": np.zeros(4, np.float32)},
        "Conv_1": {"kernel": _kernel(2, 3, 3, 5, 4), "bias": np.zeros(4, np.float32)},
        "Conv_10": {"kernel": _kernel(2, 3, 3, 2, 4), "bias": np.zeros(4, np.float32)},
        "Dense_0": {"kernel": _kernel(8, 2), "bias": np.zeros(2, np.float32)},
    }


def test_tree_regularizer_chooses_leaves_by_path():
    params = _params()
    each = {n: regularizer(params[n]["kernel"]) for n in ("Conv_0", "Conv_1", "Conv_10")}
    assert optflow_jax.first_convolution(params) == "Conv_0/kernel"
    np.testing.assert_allclose(tree_regularizer(params), each["Conv_0"], rtol=1e-6)
    some = tree_regularizer(params, where=r"Conv_[01]/kernel$")
    np.testing.assert_allclose(some, each["Conv_0"] + each["Conv_1"], rtol=1e-6)
    every = tree_regularizer(params, where=lambda path, leaf: leaf.ndim == 5)
    np.testing.assert_allclose(every, sum(each.values()), rtol=1e-6)
    gradient = jax.grad(lambda p: tree_regularizer(p, channels="rgb"))(params)
    assert np.any(gradient["Conv_0"]["kernel"]) and not np.any(gradient["Conv_1"]["kernel"])


def test_first_convolution_of_haiku_and_of_many_layers():
    network = hk.transform(lambda x: hk.Conv3D(2, 3)(hk.Conv3D(3, 3)(x)))
    params = network.init(jax.random.key(0), jnp.zeros((1, 3, 4, 4, 1)))
    assert sorted(params) == ["conv3_d", "conv3_d_1"]
    assert optflow_jax.first_convolution(params) == "conv3_d/w"
    np.testing.assert_allclose(
        tree_regularizer(params, where="^conv3_d/w$"),
        regularizer(params["conv3_d"]["w"]),
        rtol=1e-6,
    )
    many = {f"Conv_{i}": {"kernel": jnp.zeros((1, 1, 1, 1, 1))} for i in (2, 10, 7)}
    assert optflow_jax.first_convolution(many) == "Conv_2/kernel"


def test_torch_layout():
    """(out, in, T, H, W), as PyTorch and Equinox have it, and not a word otherwise is an error."""
    kernel = _kernel(2, 3, 4, 3, 5)
    weight = kernel.transpose(4, 3, 0, 1, 2)
    expected = regularizer(kernel, channels="rgb")
    got = regularizer(weight, channels="rgb", layout="torch")
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    conv = eqx.nn.Conv3d(3, 5, (2, 3, 4), key=jax.random.key(0))
    network = {"layers": [eqx.tree_at(lambda c: c.weight, conv, jnp.asarray(weight))]}
    params = eqx.filter(network, eqx.is_array)
    for where in ("first", "all", "weight$"):
        with pytest.raises(ValueError, match="layout: got None for the leaf 'layers/0/weight'"):
            tree_regularizer(params, where=where)
        tree = tree_regularizer(params, where=where, layout="torch", channels="rgb")
        np.testing.assert_allclose(tree, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="layout: got None"):
        optflow_jax.first_convolution(params)
    assert optflow_jax.first_convolution(params, layout="torch") == "layers/0/weight"


def test_a_stack_of_2d_kernels_is_not_a_3d_kernel():
    stacked = {"kernel": _kernel(5, 3, 3, 4, 8), "bias": np.zeros((5, 8), np.float32)}
    named = {"VmapConv_0": {"kernel": stacked["kernel"]}}
    torch = {"c": {"weight": _kernel(5, 8, 4, 3, 3), "bias": np.zeros((5, 8, 1, 1), np.float32)}}
    for params, layout in ((stacked, None), (named, None), (torch, "torch")):
        for where in ("first", "all", "kernel|weight", lambda path, leaf: leaf.ndim == 5):
            with pytest.raises(ValueError, match="stack"):
                tree_regularizer(params, where=where, layout=layout)
    both = named | {"Conv_0": {"kernel": _kernel(2, 3, 3, 3, 4)}}
    assert optflow_jax.first_convolution(both) == "Conv_0/kernel"


@pytest.mark.parametrize(
    "names",
    [
        ("conv1_down", "conv2_down", "conv3_down"),
        ("ScanEncoder_0/Conv_0", "VmapNet_1/Conv_0", "scan/stem"),
        ("blocks/layers_0", "conv2_d", "my_layer_stack/conv2D"),
        ("conv2", "scanner", "Conv2Down_0"),
    ],
    ids=lambda names: names[0],
)
@pytest.mark.parametrize("bias", ["bias", "b"])
def test_names_do_not_make_a_3d_kernel_a_stack(names, bias):
    """A bias with one entry for each output channel rules that out; one for each layer does not."""
    kernels = [np.random.RandomState(i).randn(2, 3, 3, 2, 4) for i in range(3)]
    plain = {name: {"kernel": k, bias: np.zeros(4)} for name, k in zip(names, kernels, strict=True)}
    costs = [float(optflow_jax.regularizer(k, solver="cholesky")) for k in kernels]
    got = optflow_jax.tree_regularizer(plain, where="all", solver="cholesky")
    np.testing.assert_allclose(got, sum(costs), rtol=1e-5)
    stacked = {name: layer | {bias: np.zeros((2, 4))} for name, layer in plain.items()}
    with pytest.raises(ValueError, match="stacks of 2D kernels"):
        optflow_jax.tree_regularizer(stacked, where="all")


def test_a_name_counts_where_no_bias_tells():
    kernel = np.random.RandomState(0).randn(2, 3, 3, 2, 4)
    for name in ("ScanBlock_0/Conv_0", "VmapConv_0", "net/__layer_stack/conv", "conv2_d_1"):
        with pytest.raises(ValueError, match="stacks of 2D kernels"):
            optflow_jax.first_convolution({name: {"kernel": kernel}})
    # Another layer of the module is not stacked, so the module is not.
    tree = {"ScanEncoder_0": {"Conv_0": {"kernel": kernel}, "Norm_0": {"bias": np.zeros(4)}}}
    assert optflow_jax.first_convolution(tree) == "ScanEncoder_0/Conv_0/kernel"
    for name in ("conv2_down", "conv2", "scanner"):
        assert optflow_jax.first_convolution({name: {"kernel": kernel}}) == f"{name}/kernel"


def test_the_keys_of_a_state_dict_need_a_layout():
    tree = {"scan.conv1.weight": np.zeros((4, 2, 2, 3, 3)), "scan.conv1.bias": np.zeros(4)}
    with pytest.raises(ValueError, match="layout: got None for the leaf 'scan.conv1.weight'"):
        optflow_jax.tree_regularizer(tree)
    assert optflow_jax.first_convolution(tree, layout="torch") == "scan.conv1.weight"


def test_where_all_and_nnx_paths():
    params = _params()
    convolutions = [params[n]["kernel"] for n in ("Conv_0", "Conv_1", "Conv_10")]
    expected = sum(map(regularizer, convolutions))
    np.testing.assert_allclose(tree_regularizer(params, where="all"), expected, rtol=1e-6)
    ends = {n: {k: {"value": x} for k, x in leaves.items()} for n, leaves in params.items()}
    assert optflow_jax.first_convolution(ends) == "Conv_0/kernel"
    some = tree_regularizer(ends, where=r"Conv_\d+/kernel$")
    np.testing.assert_allclose(some, expected, rtol=1e-6)


def test_a_failed_filter_may_be_dropped():
    kernel = _kernel(2, 3, 4, 1, 5)
    kernel[0, 0, 0, 0, 1], kernel[:, :, :, :, 3] = np.nan, 1e25
    good = np.delete(kernel, [1, 3], axis=4)
    assert np.isnan(regularizer(kernel))
    dropped = functools.partial(regularizer, on_failure="drop")
    value, slope = jax.jit(jax.value_and_grad(dropped))(kernel)
    expected, others = jax.jit(jax.value_and_grad(regularizer))(good)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(np.delete(slope, [1, 3], axis=4), others, rtol=1e-5, atol=1e-7)
    assert not slope[..., [1, 3]].any()
    nothing = kernel[..., [1, 3, 1, 3, 1]]
    assert regularizer(nothing, on_failure="drop") == 0
    tree = {"Conv_0": {"kernel": kernel}}
    np.testing.assert_allclose(tree_regularizer(tree, on_failure="drop"), expected, rtol=1e-6)
    costs = cost(optflow_jax.collapse(kernel), on_failure="drop")
    assert costs[1] == costs[3] == 0 and (costs[jnp.array([0, 2, 4])] > 0).all()


def test_what_cannot_be_chosen_is_named():
    params = _params()
    with pytest.raises(ValueError, match=r"chooses 'Dense_0/kernel' of shape \(8, 2\)"):
        tree_regularizer(params, where="Dense_0/kernel")
    with pytest.raises(ValueError, match="where: got 'Conv_7'.*Conv_0/bias"):
        tree_regularizer(params, where="Conv_7")
    with pytest.raises(ValueError, match="none of which has five axes"):
        tree_regularizer({"Dense_0": params["Dense_0"]})
    with pytest.raises(ValueError, match="where: got 'first' for .*stem/kernel"):
        tree_regularizer(params | {"stem": params["Conv_0"]})
