"""Reading .npz and .safetensors: every dtype, and files that are damaged."""

import json
import zipfile

import ml_dtypes
import numpy as np
import pytest

from experiments.system.errors import UserError
from experiments.system.tensor_files import read_tensors, weights

# Of the format's names; those of torch for 8 bits are float8_e4m3fn and so on.
NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip


def dtype(name):
    return np.dtype(getattr(ml_dtypes, name, name))


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
    values = 1 + np.arange(24).reshape(2, 3, 4) % 2  # float8_e8m0fnu has no zero
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
        ({"dtype": "F4", "data_offsets": [0, 99]}, "does not fit bytes 0 to 99"),
        ({"dtype": 7}, "w has the dtype 7"),
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


def test_bfloat16_comes_back_from_npz(tmp_path):
    """NumPy writes it as two bytes without a meaning; no other type of JAX or TensorFlow is so."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(ml_dtypes.bfloat16)
    np.savez_compressed(tmp_path / "w.npz", kernel=kernel, scale=np.float32(2))
    read = read_tensors(str(tmp_path / "w.npz"))
    assert read["kernel"].dtype == ml_dtypes.bfloat16 and read.skipped == {}
    np.testing.assert_array_equal(read["kernel"], kernel)
    for name in dir(ml_dtypes):  # What makes this sound: a type of two bytes more would end it.
        found = getattr(ml_dtypes, name)
        if isinstance(found, type) and issubclass(found, np.generic):
            assert np.dtype(found).itemsize != 2 or found is ml_dtypes.bfloat16


def test_what_cannot_be_read_is_named_and_the_rest_is_read(tmp_path):
    kernel = np.ones((3, 3, 2, 4), np.float32)
    tensors = {
        "first": kernel,
        "pickled": np.array([{"code": "is not run"}], object),
        "eight_bits": kernel.astype(ml_dtypes.float8_e4m3fn),  # any of ten types: one byte
        "e5m2": kernel.astype(ml_dtypes.float8_e5m2),  # NumPy writes a type that it cannot read
        "last": kernel,
    }
    np.savez(tmp_path / "w.npz", **tensors)
    with zipfile.ZipFile(tmp_path / "w.npz", "a") as archive:
        archive.writestr("README", "no array")
    read = read_tensors(tmp_path / "w.npz")
    assert list(read) == ["first", "last"]
    assert set(read.skipped) == {"pickled", "eight_bits", "e5m2", "README"}
    assert "pickle" in read.skipped["pickled"] and "V1" in read.skipped["eight_bits"]
    assert "f1" in read.skipped["e5m2"] and read.skipped["README"] == "no array"
    for name in ("pickled", "e5m2"):  # Who needs it is told why it is not there.
        with pytest.raises(
            UserError, match=f"^w.npz: {name}: got .*(pickle|f1).*; accepted: shape"
        ):
            weights(read, name, (1,), "w.npz")

    packed = {"dtype": "F4", "shape": [3, 4], "data_offsets": [0, 6]}
    new = {"dtype": "F5", "shape": [6], "data_offsets": [6, 12]}
    w = {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}
    text = json.dumps({"packed": packed, "new": new, "w": w}).encode()
    data = bytes(12) + np.float32([1, 2]).tobytes()
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    read = read_tensors(path)
    np.testing.assert_array_equal(read["w"], [1, 2])
    assert list(read) == ["w"]
    assert list(read.skipped) == ["packed", "new"] and "dtype F4" in read.skipped["packed"]


@pytest.mark.parametrize("header", ["[]", "3", '{"w": 3}', '{"w": {}}', "[" * 100_000, "{"])
def test_a_safetensors_header_that_is_no_table(tmp_path, header):
    path = tmp_path / "w.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    with pytest.raises(UserError, match="w.safetensors: is no .safetensors file or is damaged"):
        read_tensors(path)


def test_a_member_that_is_damaged_is_damage(tmp_path):
    path = tmp_path / "w.npz"
    np.savez_compressed(path, w=np.random.default_rng(0).normal(size=1000))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)
    with pytest.raises(UserError, match="w.npz: is no .npz file or is damaged"):
        read_tensors(path)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="w.pth: got .pth; accepted: .npz, .safetensors"):
        read_tensors(tmp_path / "w.pth")
    with pytest.raises(UserError, match="none.npz: cannot be read: No such file"):
        read_tensors(tmp_path / "none.npz")
