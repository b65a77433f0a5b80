"""FID's Inception network: its tensors, its blocks in float64, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.data.prepare import inception as prepare
from experiments.models import inception
from experiments.models.inception import Block, Layer
from experiments.system.errors import UserError
from tests.experiments.system import torch_writer


def test_the_tensors_are_those_of_the_usual_file():
    shapes = inception.shapes()
    assert len(shapes) == 94 * 5
    learnt = {n: s for n, s in shapes.items() if not n.endswith(("running_mean", "running_var"))}
    # torchvision's Inception v3 (27,161,264 parameters) without its classifier of 1000 classes
    # (2,049,000) and its auxiliary classifier (3,326,696).
    assert sum(int(np.prod(s)) for s in learnt.values()) == 27_161_264 - 2_049_000 - 3_326_696
    for name, shape in {
        "Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3),
        "Conv2d_4a_3x3.conv.weight": (192, 80, 3, 3),
        "Mixed_5b.branch5x5_2.conv.weight": (64, 48, 5, 5),
        "Mixed_5b.branch_pool.conv.weight": (32, 192, 1, 1),
        "Mixed_5d.branch3x3dbl_3.bn.running_var": (96,),
        "Mixed_6a.branch3x3.conv.weight": (384, 288, 3, 3),
        "Mixed_6c.branch7x7dbl_4.conv.weight": (160, 160, 7, 1),
        "Mixed_6e.branch7x7_2.conv.weight": (192, 192, 1, 7),
        "Mixed_7a.branch7x7x3_4.conv.weight": (192, 192, 3, 3),
        "Mixed_7b.branch3x3_2a.conv.weight": (384, 384, 1, 3),
        "Mixed_7c.branch3x3dbl_3b.conv.weight": (384, 384, 3, 1),
        "Mixed_7c.branch1x1.bn.bias": (320,),
    }.items():
        assert shapes[name] == shape


def test_an_image_of_any_size_has_2048_features():
    weights = {
        name: np.broadcast_to(np.float32(0.01), shape if len(shape) == 1 else
                              (*shape[2:], shape[1], shape[0]))
        for name, shape in inception.shapes().items()
    }  # fmt: skip
    images = jax.ShapeDtypeStruct((2, 40, 60, 3), jnp.float32)
    found = jax.eval_shape(lambda x: inception.features(weights, x), images)
    assert found.shape == (2, inception.FEATURES)


def convolved(x, weights, name, layer):
    kernel, scale, shift, mean, variance = (
        np.float64(weights[f"{name}.{part}"]) for part in inception._PARTS
    )
    rows, columns = layer.padding
    x = np.pad(x, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    height, width = (x.shape[i + 1] - layer.window[i] + 1 for i in (0, 1))
    total = sum(
        x[:, i : i + height : layer.stride, j : j + width : layer.stride] @ kernel[i, j]
        for i in range(layer.window[0])
        for j in range(layer.window[1])
    )
    return np.maximum(0, (total - mean) / np.sqrt(variance + 1e-3) * scale + shift)


def pooled(x, kind):
    """3x3 windows of the pixels that there are; "reduce": of whole windows, every second one."""
    height, width = x.shape[1:3]
    reduce = np.mean if kind == "mean" else np.max
    if kind == "reduce":
        return np.stack([np.stack([
            x[:, i : i + 3, j : j + 3].max(axis=(1, 2)) for j in range(0, width - 2, 2)
        ], axis=1) for i in range(0, height - 2, 2)], axis=1)  # fmt: skip
    return np.stack([np.stack([
        reduce(x[:, max(0, i - 1) : i + 2, max(0, j - 1) : j + 2], axis=(1, 2))
        for j in range(width)
    ], axis=1) for i in range(height)], axis=1)  # fmt: skip


@pytest.mark.parametrize("pool", ["mean", "max", "reduce"])
def test_a_block_computes_its_branches(pool):
    rng = np.random.default_rng(0)
    stride = {"stride": 2} if pool == "reduce" else {"padding": (1, 1)}
    first = Layer("a_1", 3)
    split = (
        Layer("a_2a", 2, window=(1, 3), padding=(0, 1)),
        Layer("a_2b", 2, window=(3, 1), padding=(1, 0)),
    )
    single = Layer("b", 4, window=(3, 3), **stride)
    block = Block("B", ((single,),) if pool == "reduce" else ((single,), (first, split)), pool, 2)
    layers = [(single, 3), (first, 3), (split[0], 3), (split[1], 3), (Layer("branch_pool", 2), 3)]
    weights = {}
    for layer, inputs in layers:
        for part in inception._PARTS:
            shape = (*layer.window, inputs, layer.outputs) if "conv" in part else layer.outputs
            low = 0.2 if part == "bn.running_var" else -1.0
            weights[f"B.{layer.name}.{part}"] = np.float32(rng.uniform(low, 1, shape))
    x = rng.normal(size=(2, 7, 6, 3))
    found = inception._block(weights, block, jnp.asarray(x, jnp.float32))
    at = lambda y, layer: convolved(y, weights, f"B.{layer.name}", layer)  # noqa: E731
    expected = [at(x, single)]
    if pool == "reduce":
        expected.append(pooled(x, pool))
    else:
        expected += [at(at(x, first), one) for one in split]
        expected.append(at(pooled(x, pool), layers[-1][0]))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=-1), atol=1e-4)


@pytest.fixture(scope="module")
def tensors():
    rng = np.random.default_rng(0)
    found = {n: np.float32(rng.uniform(0.5, 1, s[-1:])) for n, s in inception.shapes().items()}
    return {n: np.broadcast_to(found[n], s) for n, s in inception.shapes().items()}


def test_a_pth_file_is_prepared_without_torch(tensors, tmp_path):
    extra = {"fc.weight": np.zeros((4, 2), np.float32), "Conv2d_1a_3x3.bn.num_batches_tracked": 5}
    given = {**tensors, **{name: np.asarray(value) for name, value in extra.items()}}
    torch_writer.write_zip(tmp_path / "a.pth", *torch_writer.state_dict(given))
    path = prepare.prepare(tmp_path / "a.pth", tmp_path / "D")
    assert path == tmp_path / "D" / "inception_2015_12_05.npz"
    loaded = inception.load(path)
    assert list(loaded) == list(inception.shapes())
    name = "Mixed_6c.branch7x7dbl_4.conv.weight"
    np.testing.assert_array_equal(loaded[name], tensors[name].transpose(2, 3, 1, 0))


def test_other_weights_are_refused_by_name(tensors, tmp_path):
    fewer = {n: x for n, x in tensors.items() if n != "Mixed_7c.branch1x1.bn.bias"}
    with pytest.raises(UserError, match="a.pth: Mixed_7c.branch1x1.bn.bias: got no such tensor"):
        inception.prepared(fewer, "a.pth")
    other = tensors | {"Conv2d_1a_3x3.bn.bias": np.zeros(3)}
    with pytest.raises(UserError, match=r"Conv2d_1a_3x3.bn.bias: got shape \(3,\); accepted: shap"):
        inception.prepared(other, "a.pth")
    for wrong, got in ((np.nan, "NaN or infinity"), ("a", "dtype <U1")):
        np.savez(tmp_path / "w.npz", **tensors | {"Conv2d_1a_3x3.bn.bias": np.full(32, wrong)})
        with pytest.raises(UserError, match=f"^source: got .*bn.bias: got {got}; accepted"):
            prepare.prepare(tmp_path / "w.npz", tmp_path / "D")
    (tmp_path / "bad.pth").write_bytes(b"cos\nsystem\n(S'touch made'\ntR.")
    with pytest.raises(UserError) as caught:
        prepare.prepare(tmp_path / "bad.pth", tmp_path / "D")
    assert str(caught.value).startswith("source: got ") and "asks for os.system" in str(
        caught.value
    )
    assert "\n" not in str(caught.value) and not (tmp_path / "D").exists()
