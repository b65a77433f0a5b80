"""The weights of FID's Inception network: from PyTorch's file to a .npz that needs no PyTorch."""

from __future__ import annotations

import io
import os
import pathlib

import numpy as np

from experiments.data import store
from experiments.models import inception
from experiments.system import tensor_files, torch_files
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_bytes

FILE = "inception_2015_12_05.npz"
ACCEPTED = "the file pt_inception-2015-12-05-6726825d.pth of pytorch-fid, or its .npz"


def prepare(source: str | os.PathLike[str], data_dir: str | os.PathLike[str]) -> pathlib.Path:
    """Writes DATA_DIR/inception_2015_12_05.npz from a .pth, .npz or .safetensors file.

    No code of the file is run. What is not needed (the classifier, counters) is left out.

    Args:
      source: the file.
      data_dir: the folder of prepared datasets; it is made.

    Returns:
      The path that was written.

    Raises:
      ConfigError: naming source, where the file cannot be used, or data_dir.
    """
    target = store.root(data_dir) / FILE
    try:
        path = pathlib.Path(source).expanduser()
        legacy = path.suffix in (".pth", ".pt")
        found = (torch_files if legacy else tensor_files).read_tensors(path)
        inception.prepared(found, str(path))
    except (UserError, RuntimeError) as error:  # RuntimeError: ~nobody, there is no such user
        raise ConfigError("source", f"{source} ({error})", ACCEPTED) from error
    data = io.BytesIO()
    np.savez(data, **{name: np.float32(found[name]) for name in inception.shapes()})
    try:
        write_bytes(target, data.getvalue())
    except OSError as error:
        raise ConfigError(
            "data_dir", data_dir, f"a folder that can be written to ({error.strerror})"
        ) from error
    return target
