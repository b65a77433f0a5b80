"""Convolution kernels of .onnx files that are written here field by field.

The reader was compared with the `onnx` package on the 160 models of its tests and on four trained
networks: all kernels are equal.
"""

import importlib.util
import pathlib

import ml_dtypes
import numpy as np
import pytest

from experiments.system.errors import UserError
from experiments.system.onnx_files import read_convolutions

spec = importlib.util.spec_from_file_location(
    "onnx_writer", pathlib.Path(__file__).with_name("onnx_writer.py")
)
write = importlib.util.module_from_spec(spec)
spec.loader.exec_module(write)

FLOAT, HALF, DOUBLE, BFLOAT16, INT8 = 1, 10, 11, 16, 3


def kernel(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


@pytest.fixture
def read(tmp_path):
    def read(*parts):
        path = tmp_path / "net.onnx"
        path.write_bytes(write.model(*parts))
        return read_convolutions(path)

    return read


def test_kernels_in_the_order_of_the_graph_with_their_groups(read):
    first, second = kernel(5, 3, 3, 3), kernel(300, 1, 1, 2)
    found = read(
        write.initializer(write.tensor("second", second, FLOAT)),
        write.initializer(write.tensor("first", first, FLOAT, packed=False)),
        write.initializer(write.tensor("dense", kernel(4, 4), FLOAT)),
        write.node("Conv", ["x", "first", "bias"], ["y"]),
        write.node("Gemm", ["y", "dense"], ["z"]),
        write.node("Conv", ["z", "second"], ["w"], write.group(300)),
    )
    assert list(found) == ["first", "second"]
    np.testing.assert_array_equal(found["first"].kernel, first)
    np.testing.assert_array_equal(found["second"].kernel, second)
    assert (found["first"].groups, found["second"].groups) == (1, 300)


@pytest.mark.parametrize("options", [{"raw": False}, {"raw": False, "packed": False}])
def test_values_that_are_not_raw(read, options):
    w = kernel(2, 3, 1, 1)
    value = write.tensor("w", w, FLOAT, **options)
    found = read(write.initializer(value), write.node("Conv", ["x", "w"], ["y"]))
    np.testing.assert_array_equal(found["w"].kernel, w)


@pytest.mark.parametrize(
    "kind, dtype", [(HALF, np.float16), (DOUBLE, np.float64), (BFLOAT16, ml_dtypes.bfloat16)]
)
def test_other_dtypes(read, kind, dtype):
    w = kernel(2, 3, 1, 1, dtype=dtype)
    value = write.tensor("w", w, kind)
    found = read(write.initializer(value), write.node("Conv", ["x", "w"], ["y"]))
    assert found["w"].kernel.dtype == dtype
    np.testing.assert_array_equal(found["w"].kernel, w)


def test_constants_identities_and_transposed_convolutions(read):
    w, t = kernel(2, 3, 1, 1), kernel(4, 6, 2, 2)
    found = read(
        write.constant("w", write.tensor("", w, FLOAT)),
        write.node("Identity", ["w"], ["same"]),
        write.node("Conv", ["x", "same"], ["y"]),
        write.initializer(write.tensor("t", t, FLOAT)),
        write.node("ConvTranspose", ["y", "t"], ["z"]),
        write.node("ConvTranspose", ["y", "t2"], ["z"], write.group(2)),
        write.initializer(write.tensor("t2", t, FLOAT)),
        write.node("Conv", ["y", "computed"], ["z"]),
    )
    assert list(found) == ["w", "t"]
    np.testing.assert_array_equal(found["w"].kernel, w)
    np.testing.assert_array_equal(found["t"].kernel, t.swapaxes(0, 1))  # (in, out, ...) there


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": FLOAT, "external": True}, "w is kept in another file; accepted: weights inside"),
        ({"kind": INT8}, r"w has data type 3; accepted: \[1, 10, 11, 16\]"),
    ],
)
def test_weights_that_are_refused(read, options, message):
    value = write.tensor("w", kernel(2, 3, 1, 1), **options)
    with pytest.raises(UserError, match=message):
        read(write.initializer(value), write.node("Conv", ["x", "w"], ["y"]))


def test_damaged_files(tmp_path):
    path = tmp_path / "net.onnx"
    whole = write.model(
        write.initializer(write.tensor("w", kernel(2, 3, 1, 1), FLOAT)),
        write.node("Conv", ["x", "w"], ["y"]),
    )
    for content in (whole[:-30], b"", b"\xff" * 20, b"not a model at all", b"\x0f" + whole):
        path.write_bytes(content)
        with pytest.raises(UserError, match="net.onnx: is no .onnx file or is damaged"):
            read_convolutions(path)
    with pytest.raises(UserError, match="none.onnx: cannot be read: No such file"):
        read_convolutions(tmp_path / "none.onnx")
