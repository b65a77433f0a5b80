"""The videos of a `ucf101` folder that TFDS prepared.

TFDS keeps a video's frames and its label, but not its name, and so not its group. It stores the
videos in the order of a hash of their names, though, so the official lists tell the names again;
every label is compared with the list's when the video is read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import struct
from collections.abc import Iterator

from experiments.data.prepare import ucf101_lists
from experiments.data.prepare.ucf101_lists import Video
from experiments.data.prepare.video import TfdsVideo

INFO = "dataset_info.json"
_CONFIG = re.compile(r"ucf101_(?P<split>[123])(_\d+)?")


def is_folder(source: str) -> bool:
    """Whether --source is, or holds, a folder such as D/ucf101/ucf101_1/2.0.0."""
    return bool(_versions(source))


def _versions(source: str) -> list[pathlib.Path]:
    """The folders of versions: `source` itself, or those in a `ucf101` folder or data_dir."""
    root = pathlib.Path(source).expanduser().resolve()
    if (root / INFO).exists():
        return [root]
    inside = root if root.name == "ucf101" else root / "ucf101"
    return sorted(path.parent for path in inside.glob(f"ucf101_*/*/{INFO}"))


def _version(source: str) -> tuple[pathlib.Path, int]:
    """The folder of the version, and the number of its official split."""
    found = _versions(source)
    if len(found) > 1:
        raise ValueError(
            f"--source: {source} holds {', '.join(map(str, found))}; accepted is one of them"
        )
    (folder,) = found
    config = _CONFIG.fullmatch(folder.parent.name)
    if config is None:
        raise ValueError(
            f"--source: {folder} is not in a folder named as TFDS names it, such as ucf101_1_256, "
            "which tells the number of the official split"
        )
    return folder, int(config["split"])


def videos(source: str, lists: str | None) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of "train" and "test" with their records, and the names of the classes.

    Args:
      source: the folder of the version, the `ucf101` folder around it, or TFDS's data_dir.
      lists: the folder ucfTrainTestlist; None looks for where TFDS unpacked it, in the
        `downloads` beside the folder.

    Raises:
      ValueError: the lists are not there, or are not those that the folder was made with.
    """
    folder, number = _version(source)
    try:
        suffix = json.loads((folder / INFO).read_text()).get("fileFormat", "tfrecord")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"--source: {folder / INFO} is damaged: {error}") from error
    where = pathlib.Path(lists).expanduser() if lists else _unpacked(folder)
    if where is None or not where.is_dir():
        raise ValueError(
            f"--lists: got {lists}; a TFDS folder does not hold the groups of its videos, which "
            "the validation set is cut by; accepted is the official folder ucfTrainTestlist"
        )
    names = ucf101_lists.class_names(where)
    listed = ucf101_lists.read(where, names, number)
    found = {}
    for split, expected in listed.items():
        records = list(_records(folder, f"*-{split}.{suffix}-*"))
        if len(records) != len(expected):
            raise ValueError(
                f"--source: {folder} holds {len(records)} videos of the {split} split, where the "
                f"list {number:02d} in {where} names {len(expected)}"
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
    """What TFDS's builder orders a video by: its key is the file's name, salted with the split."""
    from tensorflow_datasets.core import hashing

    file = video.name.partition("/")[2].replace("HandStandPushups", "HandstandPushups")
    return hashing.Hasher(split).hash_key(file)


def _records(folder: pathlib.Path, pattern: str) -> Iterator[tuple[str, int]]:
    """(file, position) of every record, in the stored order."""
    for path in sorted(folder.glob(pattern)):
        if "array_record" in path.name:
            from array_record.python.array_record_module import ArrayRecordReader

            reader = ArrayRecordReader(str(path))
            count = reader.num_records()
            reader.close()
            yield from ((str(path), index) for index in range(count))
            continue
        with open(path, "rb") as file:
            position = 0
            while header := file.read(12):
                yield str(path), position
                if len(header) < 12:
                    break  # The file is truncated; the number of videos tells.
                position += 16 + struct.unpack("<Q", header[:8])[0]
                file.seek(position)


def _unpacked(folder: pathlib.Path) -> pathlib.Path | None:
    """Where TFDS left the lists: DATA_DIR/downloads/extracted/*/ucfTrainTestlist."""
    data_dir = folder.parents[2]
    return next(data_dir.glob("downloads/extracted/*/ucfTrainTestlist"), None)
