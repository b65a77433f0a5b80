"""Convolution kernels of .onnx files, in every form in which ONNX keeps a tensor."""

import sys

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from experiments.system.errors import UserError
from experiments.system.onnx_files import read_convolutions


def kernel(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def conv(weight, operator="Conv", **attributes):
    return helper.make_node(operator, ["x", weight], [f"y_{weight}"], **attributes)


def model(nodes, tensors, functions=()):
    tensors = [
        value if isinstance(value, TensorProto) else numpy_helper.from_array(value, name)
        for name, value in tensors.items()
    ]
    graph = helper.make_graph(nodes, "graph", [], [], initializer=tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, functions=functions, opset_imports=opsets)


@pytest.fixture
def read(tmp_path):
    def read(nodes, tensors, **options):
        path = tmp_path / "net.onnx"
        path.write_bytes(model(nodes, tensors, **options).SerializeToString())
        return read_convolutions(str(path))

    return read


def test_kernels_in_the_order_of_the_graph_with_their_groups(read):
    first, second = kernel(5, 3, 3, 3), kernel(300, 1, 1, 2)
    dense = helper.make_node("Gemm", ["y", "dense"], ["z"])
    found, left_out = read(
        [conv("first"), dense, conv("second", group=300)],
        {"second": second, "first": first, "dense": kernel(4, 4)},
    )
    assert list(found) == ["first", "second"] and left_out == {}
    np.testing.assert_array_equal(found["first"].kernel, first)
    np.testing.assert_array_equal(found["second"].kernel, second)
    assert (found["first"].groups, found["second"].groups) == (1, 300)


BITS = {2: np.uint16, 1: np.uint8}


@pytest.mark.parametrize("raw", [True, False])
@pytest.mark.parametrize(
    "kind, dtype",
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.INT8, np.int8),
    ],
)
def test_every_dtype_raw_and_in_the_field_of_its_values(read, kind, dtype, raw):
    w = (4 * kernel(2, 3, 1, 1)).astype(dtype)
    tensor = TensorProto(name="w", data_type=kind, dims=w.shape)
    if raw:
        tensor.raw_data = w.tobytes()
    elif kind == TensorProto.FLOAT:
        tensor.float_data.extend(w.ravel())
    elif kind == TensorProto.DOUBLE:
        tensor.double_data.extend(w.ravel())
    elif kind == TensorProto.INT8:
        tensor.int32_data.extend(w.ravel().tolist())
    else:  # onnx.proto3: 8 and 16 bits of a float are the lowest bits of an int32
        tensor.int32_data.extend(w.view(BITS[w.itemsize]).ravel().tolist())
    found, _ = read([conv("w")], {"w": tensor})
    assert found["w"].kernel.dtype == dtype
    np.testing.assert_array_equal(found["w"].kernel, w)


def test_constants_identities_and_transposed_convolutions(read):
    w, t = kernel(2, 3, 1, 1), kernel(4, 6, 2, 2)
    value = numpy_helper.from_array(w)
    found, left_out = read(
        [
            helper.make_node("Constant", [], ["w"], value=value),
            helper.make_node("Identity", ["w"], ["same"]),
            conv("same"),
            conv("t", "ConvTranspose"),
            conv("t2", "ConvTranspose", group=2),
            conv("computed"),
        ],
        {"t": t, "t2": t},
    )
    assert list(found) == ["w", "t"]
    np.testing.assert_array_equal(found["w"].kernel, w)
    np.testing.assert_array_equal(found["t"].kernel, t.swapaxes(0, 1))  # (in, out, ...) there
    assert set(left_out) == {"t2", "computed"}
    assert "2 groups" in left_out["t2"] and "other nodes" in left_out["computed"]


def test_kernels_in_branches_and_functions(read):
    w, inner, outer = kernel(2, 3, 1, 1), kernel(4, 3, 1, 1), kernel(5, 3, 1, 1)
    branch = helper.make_graph(
        [conv("inner"), conv("outer")], "then", [], [],
        initializer=[numpy_helper.from_array(inner, "inner")],
    )  # fmt: skip
    block = helper.make_function(
        "own", "Block", ["x", "kernel"], ["y"],
        [helper.make_node("Conv", ["x", "kernel"], ["y"])],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    found, left_out = read(
        [
            helper.make_node("If", ["yes"], ["z"], then_branch=branch, else_branch=branch),
            helper.make_node("Block", ["x", "w"], ["y"], domain="own"),
        ],
        {"w": w, "outer": outer},
        functions=[block],
    )
    assert set(found) == {"inner", "outer", "w"} and left_out == {}
    for name, expected in (("inner", inner), ("outer", outer), ("w", w)):
        np.testing.assert_array_equal(found[name].kernel, expected)


def test_weights_in_files_beside_the_model(tmp_path):
    w = kernel(2, 3, 4, 4)
    whole = model([conv("w")], {"w": w})
    path = tmp_path / "net.onnx"
    onnx.save(
        whole, path, save_as_external_data=True, location="net.data", size_threshold=0,
    )  # fmt: skip
    assert (tmp_path / "net.data").stat().st_size >= w.nbytes
    found, _ = read_convolutions(path)
    np.testing.assert_array_equal(found["w"].kernel, w)
    (tmp_path / "net.data").write_bytes(b"short")
    for _ in range(2):  # cut off, then missing
        with pytest.raises(UserError, match="net.onnx: w is .*net.data") as told:
            read_convolutions(path)
        assert "\n" not in str(told.value)
        (tmp_path / "net.data").unlink(missing_ok=True)
    # A file of weights must not lead out of the folder.
    (tmp_path / "weights").write_bytes(w.tobytes())
    (tmp_path / "inside").mkdir()
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=w.shape, data_location=1)
    tensor.external_data.add(key="location", value="../weights")
    path = tmp_path / "inside" / "net.onnx"
    path.write_bytes(model([conv("w")], {"w": tensor}).SerializeToString())
    with pytest.raises(UserError, match="net.onnx: w is kept in another file") as told:
        read_convolutions(path)
    assert "\n" not in str(told.value)


def test_damaged_files(tmp_path):
    path = tmp_path / "net.onnx"
    whole = model([conv("w")], {"w": kernel(2, 3, 1, 1)}).SerializeToString()
    wrong = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=(2, 3), raw_data=b"four")
    circle = [helper.make_node("Identity", [a], [b]) for a, b in (("a", "b"), ("b", "a"))]
    for content in (
        whole[:-30], b"", b"\xff" * 20, b"not a model at all", b"\x0f" + whole,
        model([conv("w")], {"w": wrong}).SerializeToString(),
        model([helper.make_node("Conv", ["x"], ["y"])], {}).SerializeToString(),
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(UserError, match="net.onnx: is no .onnx file or is damaged") as told:
            read_convolutions(path)
        assert "\n" not in str(told.value)
    path.write_bytes(model([*circle, conv("a")], {}).SerializeToString())
    assert "other nodes" in read_convolutions(path)[1]["a"]
    with pytest.raises(UserError, match="none.onnx: cannot be read: No such file"):
        read_convolutions(tmp_path / "none.onnx")


def test_without_the_package_the_error_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"^kernels: got .*net.onnx.*pip install -e '\.\[onnx\]'"):
        read_convolutions(tmp_path / "net.onnx")
