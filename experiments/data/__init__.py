"""The datasets: one file per source, and one type, `Dataset`, that every source returns.

`load` reads what is embedded or prepared; it never downloads. `python -m experiments.prepare_data`
fetches and stores.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from experiments.data import digit_scenes, digits, images, label_images, moving_digits, ucf101
from experiments.data.dataset import Dataset, DatasetNotPrepared, Split
from experiments.system.errors import ConfigError

DEFAULT_DATA_DIR = "~/tensorflow_datasets"  # the default of TFDS: what it prepared is found


@dataclasses.dataclass(frozen=True)
class _Request:
    """What a source is asked for: see the arguments of `load`."""

    name: str
    data_dir: str
    seed: int
    notice: Callable[[str], None]
    options: dict[str, Any]

    @property
    def command(self) -> str:
        return prepare_command(self.name, self.data_dir)


@dataclasses.dataclass(frozen=True)
class _Source:
    """One dataset.

    Args:
      load: loads it.
      options: the names of the options that it has.
      stand_in: the embedded dataset that "auto" takes until this one is prepared; None for a
        dataset that is embedded itself.
      is_prepared: data_dir -> whether the dataset is there.
      flags: the flags that `prepare_data` needs beside --data_dir.
    """

    load: Callable[[_Request], Dataset]
    options: tuple[str, ...] = ()
    stand_in: str | None = None
    is_prepared: Callable[[str], bool] | None = None
    flags: str = ""


def _image_source(name: str) -> _Source:
    return _Source(
        lambda asked: images.load(name, asked.data_dir, asked.command, asked.notice),
        stand_in="digits",
        is_prepared=lambda data_dir: images.is_prepared(name, data_dir),
    )


def _label_image_source(name: str, options: tuple[str, ...] = ()) -> _Source:
    return _Source(
        lambda asked: label_images.load(
            name, asked.data_dir, asked.command, notice=asked.notice, **asked.options
        ),
        options,
        stand_in="digit_scenes",
        is_prepared=lambda data_dir: label_images.is_prepared(name, data_dir),
        flags=" --source=FOLDER",
    )


_SOURCES = {
    "digits": _Source(lambda asked: digits.load(**asked.options), ("size",)),
    "moving_digits": _Source(
        lambda asked: moving_digits.load(seed=asked.seed, **asked.options),
        ("size", "frames", "train", "validation", "test"),
    ),
    "digit_scenes": _Source(
        lambda asked: digit_scenes.load(seed=asked.seed, **asked.options),
        ("size", "train", "validation", "test", "edges"),
    ),
    **{name: _image_source(name) for name in images.NAMES},
    "ucf101": _Source(
        lambda asked: ucf101.load(
            asked.data_dir, asked.command, notice=asked.notice, **asked.options
        ),
        ("classes",),
        stand_in="moving_digits",
        is_prepared=ucf101.is_prepared,
        flags=" --source=FOLDER",
    ),
    "voc": _label_image_source("voc"),
    "cityscapes": _label_image_source("cityscapes", ("edges",)),
}
AVAILABLE = ("auto", *_SOURCES)
# A dataset that must be prepared -> the embedded dataset that "auto" takes until it is.
STAND_INS = {name: source.stand_in for name, source in _SOURCES.items() if source.stand_in}

__all__ = [
    "AVAILABLE",
    "DEFAULT_DATA_DIR",
    "STAND_INS",
    "Dataset",
    "DatasetNotPrepared",
    "Split",
    "is_taken",
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
        video, "digit_scenes" for images of labels).
      data_dir: the folder that `prepare_data` was given; `~` is the home folder.
      preferred: the dataset that "auto" takes when it is prepared, such as "cifar10"; needed with
        "auto" only.
      seed: of datasets that are generated; the others do not change with it.
      notice: is called with lines for the user: under "auto" one that says which dataset was taken
        and how the preferred one is prepared; and one for each part of a prepared dataset that was
        skipped.
      **options: options of the source: `size` (digits); `size`, `frames`, `train`, `validation` and
        `test` (moving_digits); `size`, `train`, `validation`, `test` and `edges` (digit_scenes);
        `classes` (ucf101); `edges` (cityscapes). None counts as not given. Under "auto", options
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
        for key in sorted(set(options) - set(_SOURCES[name].options)):
            _check_ignored(key, options[key])
            notice(f"{key}: ignored, because {name} has no such option")
            del options[key]
    for key in sorted(set(options) - set(_SOURCES[name].options)):
        having = [other for other, source in _SOURCES.items() if key in source.options]
        accepted = f"with --dataset={' or '.join(having)} only" if having else "no such option"
        raise ConfigError(key, f"{options[key]!r} for {name}", accepted)
    return _SOURCES[name].load(_Request(name, data_dir, seed, notice, options))


def is_taken(name: str, preferred: str, data_dir: str = DEFAULT_DATA_DIR) -> bool:
    """Whether `load` takes `preferred`, asked for by name or, prepared, by "auto".

    Example:
      >>> is_taken("auto", "mnist", "/nowhere"), is_taken("mnist", "mnist", "/nowhere")
      (False, True)
    """
    if name == "auto" and preferred in STAND_INS:
        return _is_prepared(preferred, data_dir)
    return name == preferred


def prepare_command(name: str, data_dir: str) -> str:
    """The command line that prepares or repairs a dataset under data_dir.

    Example:
      >>> prepare_command("mnist", "D")
      'python -m experiments.prepare_data mnist --data_dir=D'
    """
    return f"python -m experiments.prepare_data {name}{_SOURCES[name].flags} --data_dir={data_dir}"


def _is_prepared(name: str, data_dir: str) -> bool:
    """Whether a dataset is under data_dir; not under the default where the user has no home."""
    try:
        return _SOURCES[name].is_prepared(data_dir)
    except ConfigError:
        if data_dir == DEFAULT_DATA_DIR:
            return False
        raise


def _check_ignored(key: str, value: Any) -> None:
    """Refuses what no dataset takes, so that a mistake is told on every machine."""
    least = 2 if key == "classes" else 1
    if not isinstance(value, bool) and value < least:
        raise ConfigError(key, value, f"integers >= {least}")


def _notice(name: str, preferred: str, data_dir: str) -> str:
    if name == preferred:
        return f"dataset: {preferred}, prepared under {data_dir}"
    return (
        f"dataset: the embedded {name}, because {preferred} is not prepared under {data_dir}; to "
        f"train on it run: {prepare_command(preferred, data_dir)}"
    )
