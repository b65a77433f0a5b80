"""Reading .npz and .safetensors: every dtype, and files that are damaged."""

import json

import ml_dtypes
import numpy as np
import pytest

from experiments.system.errors import UserError
from experiments.system.tensor_files import read_tensors, weights

NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


def write_safetensors(path, tensors, **changes):
    """The format as its specification says: length, JSON, bytes."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    names = {str(dtype(numpy)): name for name, numpy in NAMES.items()}
    for key, array in tensors.items():
        first, data = len(data), data + array.tobytes()
        header[key] = {
            "dtype": names[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [first, len(data)],
        } | changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_safetensors_of_every_dtype(tmp_path):
    values = np.arange(24).reshape(2, 3, 4) % 2
    tensors = {name: values.astype(dtype(numpy)) for name, numpy in NAMES.items()}
    tensors["scalar"], tensors["empty"] = np.array(3.5, np.float32), np.zeros((0, 4), np.float32)
    write_safetensors(tmp_path / "w.safetensors", tensors)
    read = read_tensors(tmp_path / "w.safetensors")
    assert list(read) == list(tensors)
    for name, expected in tensors.items():
        assert read[name].dtype == expected.dtype and read[name].shape == expected.shape
        np.testing.assert_array_equal(read[name], expected)


def test_weights_are_finite_floats_of_their_shape():
    tensors = {"half": np.float16([1, 2]), "bf16": np.ones(2, ml_dtypes.bfloat16)}
    for name in tensors:
        assert weights(tensors, name, (2,)).dtype == np.float32
    for name, value, got in (
        ("none", None, "no such tensor"),
        ("shape", np.ones(3), r"shape \(3,\)"),
        ("text", np.array(["a", "b"]), "dtype <U1"),
        ("complex", np.ones(2, complex), "dtype complex128"),
        ("whole", np.ones(2, int), "dtype int64"),
        ("nan", np.array([1, np.nan]), "NaN or infinity"),
        ("large", np.array([1, 1e300]), "NaN or infinity"),
        ("bn.running_var", np.array([1.0, -1.0]), "a negative variance"),
    ):
        given = {} if value is None else {name: value}
        with pytest.raises(UserError, match=f"^w.npz: {name}: got {got}; accepted: "):
            weights(given, name, (2,), "w.npz")


def test_a_safetensors_file_without_tensors(tmp_path):
    write_safetensors(tmp_path / "w.safetensors", {})
    assert read_tensors(tmp_path / "w.safetensors") == {}


def test_npz(tmp_path):
    kernel = np.arange(6.0).reshape(1, 2, 3)
    np.savez(tmp_path / "w.npz", **{"layer/kernel": kernel})
    read = read_tensors(tmp_path / "w.npz")
    assert list(read) == ["layer/kernel"]
    np.testing.assert_array_equal(read["layer/kernel"], kernel)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": "F4"}, "w has dtype F4; accepted: F64, F32"),
        ({"shape": [5]}, r"w of shape \(5,\) does not fit bytes 0 to 16"),
        ({"data_offsets": [0, 99]}, "does not fit bytes 0 to 99"),
        ({"data_offsets": [-16, 0]}, "does not fit bytes -16 to 0"),
    ],
)
def test_a_safetensors_header_that_lies(tmp_path, changes, message):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"w": np.zeros(4, np.float32)}, **changes)
    with pytest.raises(UserError, match=f"w.safetensors: is no .safetensors file or .*{message}"):
        read_tensors(path)


@pytest.mark.parametrize("kept", [0, 5, 8, 40, -1])
def test_truncated_files(tmp_path, kept):
    write_safetensors(tmp_path / "a.safetensors", {"w": np.zeros(4, np.float32)})
    np.savez(tmp_path / "a.npz", w=np.zeros(4))
    for name in ("a.safetensors", "a.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(UserError, match=rf"{name}: is no \.\w+ file or is damaged"):
            read_tensors(path)


def test_pickles_are_refused_and_so_are_other_files(tmp_path):
    np.savez(tmp_path / "w.npz", w=np.array([{"code": "is not run"}], object))
    with pytest.raises(UserError, match="w.npz: is no .npz file or is damaged .*allow_pickle"):
        read_tensors(tmp_path / "w.npz")
    with pytest.raises(UserError, match="w.pth: got .pth; accepted: .npz, .safetensors"):
        read_tensors(tmp_path / "w.pth")
    with pytest.raises(UserError, match="none.npz: cannot be read: No such file"):
        read_tensors(tmp_path / "none.npz")
