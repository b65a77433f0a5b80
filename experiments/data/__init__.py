"""Where examples come from: one file per source, and one type, `Dataset`, that leaves it.

`load` is the way in. It reads what is there and never downloads; `python -m
experiments.prepare_data` is what fetches and stores.
"""

from __future__ import annotations

from collections.abc import Callable

from experiments.data import digits, images, moving_digits, ucf101
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split

DEFAULT_DATA_DIR = "~/tensorflow_datasets"  # TFDS's own, so what a user has prepared is found
AVAILABLE = ("auto", "digits", "moving_digits", "cifar10", "mnist", "fashion_mnist", "ucf101")
_STAND_INS = {
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

__all__ = ["AVAILABLE", "DEFAULT_DATA_DIR", "Dataset", "DatasetNotPrepared", "Split", "load"]


def load(
    name: str,
    data_dir: str = DEFAULT_DATA_DIR,
    *,
    own: str,
    seed: int = 0,
    notice: Callable[[str], None] = print,
    **options,
) -> Dataset:
    """Loads a dataset that is embedded or was prepared before.

    Args:
      name: one of `AVAILABLE`. "auto" takes `own` if it is prepared under data_dir, and otherwise
        the embedded stand-in of its kind ("digits" for images, "moving_digits" for video).
      data_dir: the folder that `prepare_data` was given; `~` is expanded.
      own: the experiment's own dataset, such as "cifar10".
      seed: of datasets that are generated; the others do not change with it.
      notice: is called once under "auto", with a line that says which dataset was taken and how
        the real one is prepared.
      **options: of the source: `size` (digits); `size`, `frames`, `train`, `validation` and `test`
        (moving_digits); `classes` (ucf101). Under "auto" those that the dataset taken does not know
        are left out, and `notice` says so. An option that is None is as if it were not given.

    Returns:
      The dataset.

    Raises:
      DatasetNotPrepared: a named dataset is not there or is damaged; names the command to run.
      ValueError: unknown name or own, or an option that the dataset does not take.

    Example:
      >>> dataset = load("auto", own="cifar10")
      >>> dataset.train.examples.shape
      (50000, 32, 32, 3)
    """
    if name not in AVAILABLE:
        raise ValueError(f"dataset: got {name!r}; accepted are {', '.join(AVAILABLE)}")
    if own not in _STAND_INS:
        raise ValueError(f"own: got {own!r}; accepted are {', '.join(_STAND_INS)}")
    options = {key: value for key, value in options.items() if value is not None}
    if name == "auto":
        name = own if _is_prepared(own, data_dir) else _STAND_INS[own]
        notice(_notice(name, own, data_dir))
        for key in sorted(set(options) - set(_OPTIONS.get(name, ()))):
            notice(f"{key}: ignored, because {name} has no such option")
            del options[key]
    for key in sorted(set(options) - set(_OPTIONS.get(name, ()))):
        knowing = [other for other, known in _OPTIONS.items() if key in known] or ["none"]
        raise ValueError(
            f"{key}: {name} has no such option; accepted with the datasets {', '.join(knowing)}"
        )
    if name == "digits":
        return digits.load(**options)
    if name == "moving_digits":
        return moving_digits.load(seed=seed, **options)
    if name in images.NAMES:
        return images.load(name, data_dir, prepare_command(name, data_dir))
    return ucf101.load(data_dir, prepare_command(name, data_dir), **options)


def prepare_command(name: str, data_dir: str) -> str:
    """The command line that prepares or repairs a dataset under data_dir."""
    source = " --source=FOLDER" if name == "ucf101" else ""
    return f"python -m experiments.prepare_data {name}{source} --data_dir={data_dir}"


def _is_prepared(name: str, data_dir: str) -> bool:
    if name == "ucf101":
        return ucf101.is_prepared(data_dir)
    return images.is_prepared(name, data_dir)


def _notice(name: str, own: str, data_dir: str) -> str:
    if name == own:
        return f"dataset: {own}, prepared under {data_dir}"
    return (
        f"dataset: the embedded {name}, because {own} is not prepared under {data_dir}; to train "
        f"on it run: {prepare_command(own, data_dir)}"
    )
