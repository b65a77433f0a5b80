"""The encoders compute what torchvision's networks compute, and take its weights."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.models import torchvision_weights
from experiments.models.resnet_encoder import ResNetEncoder
from experiments.system.errors import UserError

# Features of random weights and pixels, made with torch and torchvision in float64: the weights
# are those of `random_tensors`.
REFERENCE = json.loads((pathlib.Path(__file__).parent / "torchvision_resnets.json").read_text())


def shapes_of(kind, width=64):
    model, images = ResNetEncoder(kind, width), jnp.zeros((1, 64, 64, 3))
    return jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))


def random_tensors(shapes, seed=0):
    """Tensors with torchvision's names and layout, drawn in the order of the names."""
    named = torchvision_weights.to_torchvision(
        jax.tree.map(lambda leaf: np.empty(leaf.shape, np.float32), shapes)
    )
    rng, tensors = np.random.default_rng(seed), {}
    for name in sorted(named):
        shape = named[name].shape
        if len(shape) == 4:
            tensor = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        elif name.endswith(("running_var", "weight")):
            tensor = rng.uniform(0.5, 1.0, shape)
        else:
            tensor = rng.normal(0, 0.1, shape)
        tensors[name] = tensor.astype(np.float32)
    return tensors


@pytest.mark.parametrize("kind", ["resnet18", "resnet50"])
def test_features_are_those_of_torchvision(kind):
    shapes, expected = shapes_of(kind), REFERENCE[kind]
    tensors = random_tensors(shapes)
    assert len(tensors) == expected["tensors"]
    variables = torchvision_weights.from_torchvision(tensors, shapes)
    images = np.random.default_rng(1).normal(size=(1, 64, 64, 3)).astype(np.float32)
    features = jax.jit(lambda v, x: ResNetEncoder(kind).apply(v, x, train=False))(variables, images)
    for found, about in zip(features, expected["features"], strict=True):
        found = np.float64(found)
        assert list(found.shape) == about["shape"]
        scale = about["std"]
        assert found.mean() == pytest.approx(about["mean"], abs=1e-4 * scale)
        assert found.std() == pytest.approx(about["std"], rel=1e-4)
        np.testing.assert_allclose(found[0, -1, -1, :6], about["corner"], atol=1e-4 * scale)
        np.testing.assert_allclose(found[0, :4, 0, 5], about["channel"], atol=1e-4 * scale)


@pytest.fixture(scope="module")
def small():
    shapes = shapes_of("resnet18", 4)
    return shapes, random_tensors(shapes)


def write_safetensors(path, tensors):
    header, data, start = {}, b"", 0
    for name, tensor in tensors.items():
        content = np.ascontiguousarray(tensor, np.float32).tobytes()
        end = start + len(content)
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end]}
        data, start = data + content, end
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_weights_come_back_from_a_file_as_they_went(ending, small, tmp_path):
    shapes, tensors = small
    path = tmp_path / f"weights.{ending}"
    unused = {"fc.weight": np.ones((10, 32)), "fc.bias": np.ones(10)}
    unused |= {"layer1.0.bn1.num_batches_tracked": np.array(7)}
    (np.savez if ending == "npz" else lambda p, **t: write_safetensors(p, t))(
        path, **tensors, **unused
    )
    variables = torchvision_weights.load(path, shapes)
    assert jax.tree.structure(variables) == jax.tree.structure(dict(shapes))
    back = torchvision_weights.to_torchvision(variables)
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(back[name], tensor)
    # (output, input, height, width) to (height, width, input, output).
    kernel = variables["params"]["layer2_0"]["conv1"]["kernel"]
    assert kernel.shape == (3, 3, 4, 8)
    assert kernel[2, 0, 3, 5] == tensors["layer2.0.conv1.weight"][5, 3, 2, 0]
    statistics = variables["batch_stats"]["layer2_0"]["downsample_bn"]
    np.testing.assert_array_equal(statistics["var"], tensors["layer2.0.downsample.1.running_var"])


NAN = np.full((4, 3, 7, 7), np.nan, np.float32)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bn1.bias": None}, "got no bn1.bias; accepted: the 100 tensors of this encoder"),
        (
            {"layer5.0.conv1.weight": np.ones((1, 1, 1, 1))},
            "got a surplus layer5.0.conv1.weight; accepted",
        ),
        (
            {"bn1.bias": None, "bn1.beta": np.ones(4)},
            "got no bn1.bias and a surplus bn1.beta; accepted",
        ),
        (
            {"conv1.weight": np.ones((7, 7, 3, 4))},
            r"conv1.weight: got shape \(7, 7, 3, 4\); accepted: shape \(4, 3, 7, 7\)",
        ),
        ({"bn1.bias": np.ones(3)}, r"bn1.bias: got shape \(3,\); accepted: shape \(4,\)"),
        ({"bn1.bias": np.ones((2, 2, 1, 1))}, r"bn1.bias: got shape \(2, 2, 1, 1\); accepted"),
        ({"conv1.weight": np.array([None])}, "got no conv1.weight;.*conv1.weight was skipped: obj"),
        ({"conv1.weight": NAN}, "conv1.weight: got NaN or infinity; accepted: finite"),
    ],
)
def test_a_tensor_that_does_not_fit_is_one_line(change, said, small, tmp_path):
    shapes, tensors = small
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    np.savez(tmp_path / "weights.npz", **changed)
    with pytest.raises(UserError, match=said) as caught:
        torchvision_weights.load(tmp_path / "weights.npz", shapes)
    assert "\n" not in str(caught.value) and "weights.npz" in str(caught.value)
