"""The videos of a `ucf101` folder that TFDS prepared.

TFDS keeps a video's frames and its label, but not its name, which holds its group. TFDS stores the
videos in the order of a hash of their names, so the names follow from the official lists. When a
video is read its label is compared with the label in the list.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
from collections.abc import Iterator

from experiments.data import store, tfds_files, tfrecord
from experiments.data.prepare import ucf101_lists
from experiments.data.prepare.ucf101_lists import Video
from experiments.data.prepare.video import TfdsVideo
from experiments.system.errors import ConfigError

INFO = "dataset_info.json"
_CONFIG = re.compile(r"ucf101_(?P<split>[123])(_\d+)?")


def is_folder(source: str) -> bool:
    """Whether --source is, or holds, a folder such as D/ucf101/ucf101_1/2.0.0."""
    return bool(_versions(source))


def _versions(source: str) -> list[pathlib.Path]:
    """The folders of versions: `source` itself, or those in a `ucf101` folder or data_dir."""
    root = store.expanded("source", source).resolve()
    if (root / INFO).exists():
        return [root]
    inside = root if root.name == "ucf101" else root / "ucf101"
    return sorted(path.parent for path in inside.glob(f"ucf101_*/*/{INFO}"))


def _version(source: str) -> tuple[pathlib.Path, int]:
    """The folder of the version, and the number of its official split."""
    found = _versions(source)
    if len(found) > 1:
        raise ConfigError("source", f"{source}, which holds several", " or ".join(map(str, found)))
    (folder,) = found
    config = _CONFIG.fullmatch(folder.parent.name)
    if config is None:
        raise ConfigError(
            "source",
            folder,
            "a folder inside one with TFDS's name, such as ucf101_1_256, which holds the number of "
            "the official split",
        )
    return folder, int(config["split"])


def videos(source: str, lists: str | None) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of "train" and "test" with their records, and the names of the classes.

    Args:
      source: the folder of the version, the `ucf101` folder around it, or TFDS's data_dir.
      lists: the folder ucfTrainTestlist; None looks for where TFDS unpacked it, in the
        `downloads` beside the folder.

    Raises:
      ConfigError: the lists are not there, or are not those that the folder was made with.
    """
    folder, number = _version(source)
    try:
        suffix = json.loads((folder / INFO).read_text("utf-8")).get("fileFormat", "tfrecord")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(
            "source", f"{folder}, where {INFO} is damaged", "an intact folder"
        ) from error
    if suffix not in tfds_files.FORMATS:
        raise ConfigError(
            "source",
            f"{folder} in the file format {suffix}",
            f"the file formats {' and '.join(tfds_files.FORMATS)}",
        )
    where = store.expanded("lists", lists) if lists else _unpacked(folder)
    if where is None or not where.is_dir():
        raise ConfigError(
            "lists",
            lists,
            "the official folder ucfTrainTestlist (the validation set is made of groups of videos, "
            "which a TFDS folder does not hold)",
        )
    names = ucf101_lists.class_names(where)
    listed = ucf101_lists.read(where, names, number)
    found = {}
    for split, expected in listed.items():
        records = list(_records(folder, f"*-{split}.{suffix}-*"))
        if len(records) != len(expected):
            raise ConfigError(
                "source",
                f"{folder}, which holds {len(records)} videos of the {split} split",
                f"the {len(expected)} that the list {number:02d} in {where} names",
            )
        ordered = sorted(expected, key=lambda video: _hash(video, split))
        found[split] = sorted(
            (
                dataclasses.replace(video, source=TfdsVideo(path, position, video.label))
                for video, (path, position) in zip(ordered, records, strict=True)
            ),
            key=lambda video: (video.label, video.name),
        )
    return found, names


def _hash(video: Video, split: str) -> int:
    """The hash that TFDS's builder orders a video by: of the file's name, salted by the split."""
    from tensorflow_datasets.core import hashing

    file = video.name.partition("/")[2].replace("HandStandPushups", "HandstandPushups")
    return hashing.Hasher(split).hash_key(file)


def _records(folder: pathlib.Path, pattern: str) -> Iterator[tuple[str, int]]:
    """(file, position) of every record, in the stored order."""
    for path in sorted(folder.glob(pattern)):
        if "array_record" in path.name:
            from array_record.python.array_record_module import ArrayRecordReader

            try:
                reader = ArrayRecordReader(str(path))
                count = reader.num_records()
                reader.close()
            except Exception as error:  # The library's errors have no type in common.
                raise ConfigError(
                    "source", f"{path}, which is damaged", "an intact folder"
                ) from error
            yield from ((str(path), index) for index in range(count))
            continue
        # Of a truncated file, the number of videos tells.
        yield from ((str(path), offset) for offset in tfrecord.offsets(path))


def _unpacked(folder: pathlib.Path) -> pathlib.Path | None:
    """Where TFDS unpacked the lists: DATA_DIR/downloads/extracted/*/ucfTrainTestlist."""
    data_dir = folder.parents[2]
    return next(data_dir.glob("downloads/extracted/*/ucfTrainTestlist"), None)
