"""Files of torch.save are read without PyTorch, and code in them is not run."""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from experiments.system.errors import UserError
from experiments.system.torch_files import read_tensors
from tests.experiments.system import torch_writer
from tests.experiments.system.torch_writer import Stored, Tensor

WRITERS = [torch_writer.write_zip, torch_writer.write_legacy]
ARRAYS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "half": np.array([1.5, -2.0], np.float16),
    "double": np.array(3.25),
    "bn.num_batches_tracked": np.array(7, np.int64),
}


@pytest.mark.parametrize("write", WRITERS)
def test_a_state_dict_comes_back(tmp_path, write):
    write(tmp_path / "a.pth", *torch_writer.state_dict(ARRAYS))
    found = read_tensors(str(tmp_path / "a.pth"))
    assert list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("write", WRITERS)
def test_a_view_of_a_storage_is_taken_by_its_strides(tmp_path, write):
    stored = Stored("0", np.arange(20, dtype=np.float32))
    places = {"a": ((3, 2), (1, 3), 4), "b": ((2,), (5,), 1), "c": ((0,), (1,), 0)}
    views = OrderedDict((name, Tensor(stored, *place)) for name, place in places.items())
    write(tmp_path / "a.pth", views, {"0": stored})
    found = read_tensors(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["a"], [[4, 7], [5, 8], [6, 9]])
    np.testing.assert_array_equal(found["b"], [1, 6])
    assert found["c"].shape == (0,)


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("where", ["whole", "value", "key", "nested"])
def test_a_file_that_asks_for_code_is_refused_in_one_line(tmp_path, write, where):
    bad = Call(os.mkdir, str(tmp_path / "made"))
    value = {
        "whole": bad,
        "value": {"weight": bad},
        "key": {bad: 1},
        "nested": {"weight": Call(getattr, Call(__import__, "os"), "system")},
    }[where]
    write(tmp_path / "a.pth", value, {})
    with pytest.raises(UserError) as caught:
        read_tensors(tmp_path / "a.pth")
    told = str(caught.value)
    assert "\n" not in told and "its pickle asks for " in told and "accepted: a dict of" in told
    assert told.startswith(str(tmp_path / "a.pth"))
    assert not (tmp_path / "made").exists()


def test_a_pickle_that_calls_at_once_is_refused(tmp_path):
    # Neither a zip nor the magic number: the first opcode imports os.system.
    (tmp_path / "a.pth").write_bytes(b"cos\nsystem\n(S'touch made'\ntR.")
    with pytest.raises(UserError, match="its pickle asks for os.system; accepted"):
        read_tensors(tmp_path / "a.pth")


def damaged(path):
    """Ways of damage, each with the file that it leaves."""
    whole = path.read_bytes()
    yield whole[: len(whole) // 2]
    yield whole[:10]
    yield b""
    yield b"no file of torch at all"
    yield pickle.dumps({"weight": 1})


@pytest.mark.parametrize("write", WRITERS)
def test_damage_is_one_line(tmp_path, write):
    write(tmp_path / "a.pth", *torch_writer.state_dict(ARRAYS))
    for number, content in enumerate(damaged(tmp_path / "a.pth")):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(content)
        with pytest.raises(UserError, match="is no file of torch.save or is damaged") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_tensors(tmp_path / "nowhere.pth")


def refused(tmp_path, value, storages, why):
    torch_writer.write_zip(tmp_path / "a.pth", value, storages)
    with pytest.raises(UserError, match=why):
        read_tensors(tmp_path / "a.pth")


def test_what_is_no_dict_of_tensors_is_refused(tmp_path):
    stored = Stored("0", np.zeros(4, np.float32))
    refused(tmp_path, [1, 2], {}, "it holds no dict but list")
    refused(tmp_path, {"a": "text"}, {}, "'a' is no tensor but str")
    refused(
        tmp_path, {"a": Tensor(stored, (5,), (1,), 0)}, {"0": stored}, r"a of shape \(5,\) does"
    )
    refused(tmp_path, {"a": Tensor(stored, (2,), (1,), -1)}, {"0": stored}, "does not fit its 4")
    # A view that repeats one number a billion times would fill the memory.
    refused(tmp_path, {"a": Tensor(stored, (10**9,), (0,), 0)}, {"0": stored}, "does not fit its 4")
    refused(tmp_path, {"a": Tensor(stored, (4,), (1,), 0)}, {}, "is damaged")


def test_a_big_endian_file_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("archive/data.pkl", torch_writer.pickled({}))
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(UserError, match="its byte order is b'big'"):
        read_tensors(tmp_path / "a.pth")
