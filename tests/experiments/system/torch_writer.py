"""Files as torch.save writes them, made without PyTorch: the zip format and the one before it."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {
    np.dtype("f4"): "FloatStorage", np.dtype("f8"): "DoubleStorage", np.dtype("f2"): "HalfStorage",
    np.dtype("i8"): "LongStorage",
}  # fmt: skip


class Stored:
    """Stands for a storage: pickled as a persistent id."""

    def __init__(self, key, array):
        self.key, self.array = key, array


class Tensor:
    """Pickled as a call of torch._utils._rebuild_tensor_v2."""

    def __init__(self, stored, shape, stride, offset):
        self.arguments = (stored, offset, shape, stride, False, OrderedDict())

    def __reduce__(self):
        return _torch()["torch._utils"]._rebuild_tensor_v2, self.arguments


def _torch():
    """Modules with the names that the pickle has to mention; they exist while it is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*_):
        raise AssertionError("only its name is used")

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch._utils = utils
    modules = {"torch": torch, "torch._utils": utils}
    for name, module in modules.items():
        sys.modules.setdefault(name, module)
    return {name: sys.modules[name] for name in modules}


class Pickler(pickle.Pickler):
    """Torch's pickler, of protocol 2."""

    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.legacy = legacy

    def persistent_id(self, thing):
        if not isinstance(thing, Stored):
            return None
        kind = getattr(_torch()["torch"], STORAGES[thing.array.dtype])
        pid = ("storage", kind, thing.key, "cpu", thing.array.size)
        return (*pid, None) if self.legacy else pid


def pickled(value, legacy=False):
    """Bytes of the pickle; nothing called torch is left behind."""
    before = set(sys.modules)
    try:
        data = io.BytesIO()
        Pickler(data, legacy).dump(value)
        return data.getvalue()
    finally:
        for name in set(sys.modules) - before:
            if name.partition(".")[0] == "torch":
                del sys.modules[name]


def state_dict(arrays):
    """(an OrderedDict of tensors as torch pickles one, its storages by key)."""
    storages, tensors = {}, OrderedDict()
    for number, (name, array) in enumerate(arrays.items()):
        storages[str(number)] = stored = Stored(str(number), np.ascontiguousarray(array))
        stride = tuple(step // array.itemsize for step in array.strides)
        tensors[name] = Tensor(stored, array.shape, stride, 0)
    tensors._metadata = OrderedDict({"": {"version": 1}})  # as Module.state_dict() adds it
    return tensors, storages


def write_zip(path, value, storages):
    """A file of torch.save since 1.6."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", pickled(value))
        archive.writestr("archive/byteorder", "little")
        for key, stored in storages.items():
            archive.writestr(f"archive/data/{key}", stored.array.tobytes())
        archive.writestr("archive/version", "3\n")


def write_legacy(path, value, storages):
    """A file of torch.save before 1.6."""
    about = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    with open(path, "wb") as file:
        for part in (0x1950A86A20F9469CFC6C, 1001, about):
            pickle.dump(part, file, protocol=2)
        file.write(pickled(value, legacy=True))
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            array = storages[key].array
            file.write(struct.pack("<q", array.size) + array.tobytes())
