"""The datasets: one file per source, and one type, `Dataset`, that every source returns.

`load` reads what is embedded or prepared; it never downloads. `python -m experiments.prepare_data`
fetches and stores.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.data import digits, images, moving_digits, ucf101
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split
from experiments.system.errors import ConfigError

DEFAULT_DATA_DIR = "~/tensorflow_datasets"  # the default of TFDS: what it prepared is found
AVAILABLE = ("auto", "digits", "moving_digits", "cifar10", "mnist", "fashion_mnist", "ucf101")
# A dataset that must be prepared -> the embedded dataset that "auto" takes until it is.
STAND_INS = {
    "cifar10": "digits",
    "mnist": "digits",
    "fashion_mnist": "digits",
    "ucf101": "moving_digits",
}
_OPTIONS = {
    "digits": ("size",),
    "moving_digits": ("size", "frames", "train", "validation", "test"),
    "ucf101": ("classes",),
}

__all__ = [
    "AVAILABLE",
    "DEFAULT_DATA_DIR",
    "STAND_INS",
    "Dataset",
    "DatasetNotPrepared",
    "Split",
    "load",
    "prepare_command",
]


def load(
    name: str,
    data_dir: str = DEFAULT_DATA_DIR,
    *,
    preferred: str | None = None,
    seed: int = 0,
    notice: Callable[[str], None] = print,
    **options,
) -> Dataset:
    """Loads a dataset that is embedded or was prepared before.

    Args:
      name: one of `AVAILABLE`. "auto" takes `preferred` if it is prepared under data_dir, and
        otherwise the embedded dataset of the same kind ("digits" for images, "moving_digits" for
        video).
      data_dir: the folder that `prepare_data` was given; `~` is the home folder.
      preferred: the dataset that "auto" takes when it is prepared, such as "cifar10"; needed with
        "auto" only.
      seed: of datasets that are generated; the others do not change with it.
      notice: is called with lines for the user: under "auto" one that says which dataset was taken
        and how the preferred one is prepared; and one for each part of a prepared dataset that was
        skipped.
      **options: options of the source: `size` (digits); `size`, `frames`, `train`, `validation` and
        `test` (moving_digits); `classes` (ucf101). None counts as not given. Under "auto", options
        that the dataset taken does not have are left out, and `notice` says so.

    Returns:
      The dataset.

    Raises:
      DatasetNotPrepared: a dataset is not there or is damaged; names the command to run.
      ConfigError: unknown name or preferred, or an option that the dataset does not have.

    Example:
      >>> load("digits", size=16).train.examples.shape
      (1437, 16, 16, 3)
      >>> load("auto", "/nowhere", preferred="cifar10", notice=lambda line: None).name
      'digits'
    """
    if name not in AVAILABLE:
        raise ConfigError("dataset", repr(name), ", ".join(AVAILABLE))
    if preferred not in STAND_INS and (name == "auto" or preferred is not None):
        raise ConfigError("preferred", repr(preferred), ", ".join(STAND_INS))
    options = {key: value for key, value in options.items() if value is not None}
    if name == "auto":
        name = preferred if _is_prepared(preferred, data_dir) else STAND_INS[preferred]
        notice(_notice(name, preferred, data_dir))
        for key in sorted(set(options) - set(_OPTIONS.get(name, ()))):
            notice(f"{key}: ignored, because {name} has no such option")
            del options[key]
    for key in sorted(set(options) - set(_OPTIONS.get(name, ()))):
        having = [other for other, known in _OPTIONS.items() if key in known]
        accepted = f"with --dataset={' or '.join(having)} only" if having else "no such option"
        raise ConfigError(key, f"{options[key]!r} for {name}", accepted)
    if name == "digits":
        return digits.load(**options)
    if name == "moving_digits":
        return moving_digits.load(seed=seed, **options)
    command = prepare_command(name, data_dir)
    if name in images.NAMES:
        return images.load(name, data_dir, command, notice)
    return ucf101.load(data_dir, command, notice=notice, **options)


def prepare_command(name: str, data_dir: str) -> str:
    """The command line that prepares or repairs a dataset under data_dir.

    Example:
      >>> prepare_command("mnist", "D")
      'python -m experiments.prepare_data mnist --data_dir=D'
    """
    source = " --source=FOLDER" if name == "ucf101" else ""
    return f"python -m experiments.prepare_data {name}{source} --data_dir={data_dir}"


def _is_prepared(name: str, data_dir: str) -> bool:
    if name == "ucf101":
        return ucf101.is_prepared(data_dir)
    return images.is_prepared(name, data_dir)


def _notice(name: str, preferred: str, data_dir: str) -> str:
    if name == preferred:
        return f"dataset: {preferred}, prepared under {data_dir}"
    return (
        f"dataset: the embedded {name}, because {preferred} is not prepared under {data_dir}; to "
        f"train on it run: {prepare_command(preferred, data_dir)}"
    )
