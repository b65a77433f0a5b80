"""The videos of a `ucf101` folder that TFDS prepared.

TFDS keeps a video's frames and its label, but not its name, and so not its group. It stores the
videos in the order of a hash of their names, though, so the official lists tell the names again;
every label is compared with the list's when the video is read.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import struct
from collections.abc import Iterator

from experiments.data import ucf101_lists
from experiments.data.ucf101_lists import Video
from experiments.data.video import TfdsVideo


def is_folder(source: str) -> bool:
    """Whether --source is a folder such as D/ucf101/ucf101_1/2.0.0."""
    return (pathlib.Path(source).expanduser() / "dataset_info.json").exists()


def videos(source: str, lists: str | None) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of "train" and "test" with their records, and the names of the classes.

    Args:
      source: the folder.
      lists: the folder ucfTrainTestlist; None looks for where TFDS unpacked it, in the
        `downloads` beside the folder.

    Raises:
      ValueError: the lists are not there, or are not those that the folder was made with.
    """
    folder = pathlib.Path(source).expanduser()
    info = json.loads((folder / "dataset_info.json").read_text())
    where = pathlib.Path(lists).expanduser() if lists else _unpacked(folder)
    if where is None or not where.is_dir():
        raise ValueError(
            f"--lists: got {lists}; a TFDS folder does not hold the groups of its videos, which "
            "the validation set is cut by; accepted is the official folder ucfTrainTestlist"
        )
    names = ucf101_lists.class_names(where)
    number = int(folder.parent.name.split("_")[1]) if "_" in folder.parent.name else 1
    listed = ucf101_lists.read(where, names, number)
    suffix = info.get("fileFormat", "tfrecord")
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
                position += 16 + struct.unpack("<Q", header[:8])[0]
                file.seek(position)


def _unpacked(folder: pathlib.Path) -> pathlib.Path | None:
    """Where TFDS left the lists: DATA_DIR/downloads/extracted/*/ucfTrainTestlist."""
    data_dir = folder.parents[2]
    return next(data_dir.glob("downloads/extracted/*/ucfTrainTestlist"), None)
