"""The official lists of UCF-101: the split, the class and the group of every video.

K. Soomro, A. R. Zamir and M. Shah, "UCF101: a dataset of 101 human actions classes from videos in
the wild", CRCV-TR-12-01, 2012. The videos of one group (gNN) were cut from one recording, so a
group must not be in two splits.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import NoReturn

from experiments.data import store
from experiments.data.prepare.video import TfdsVideo, VideoFile
from experiments.system.errors import ConfigError, UserError

VALIDATION_SHARE = 0.11  # of the groups in the training list
SOURCE_ACCEPTED = (
    "a folder that holds UCF-101 (the videos) and ucfTrainTestlist (the lists) as they come, or a "
    "`ucf101` folder that TFDS prepared"
)
LISTS_ACCEPTED = "the official folder ucfTrainTestlist"
_NAME = re.compile(r"v_(?P<action>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)\.avi")


@dataclasses.dataclass(frozen=True)
class Video:
    """One video of the dataset.

    Args:
      name: CLASS/v_CLASS_gNN_cMM.avi.
      label: label of its class, from 0.
      group: NN.
      source: where its frames are; None before it has been looked for.
    """

    name: str
    label: int
    group: int
    source: VideoFile | TfdsVideo | None = None


def videos(source: str, lists: str | None) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of "train" and "test" with their files, and the names of the classes.

    Args:
      source: a folder that holds UCF-101 and ucfTrainTestlist.
      lists: the folder of the lists where it is elsewhere.

    Raises:
      UserError: a folder is not there, or a list does not have the official form.
    """
    root = store.expanded("source", source)
    folder = root / "UCF-101"
    where = store.expanded("lists", lists) if lists else root / "ucfTrainTestlist"
    for field, given, needed in (("source", source, folder), ("lists", lists, where)):
        if not needed.is_dir():
            raise ConfigError(
                field if given else "source",
                f"{given or source} ({needed} is not a folder)",
                LISTS_ACCEPTED if given and field == "lists" else SOURCE_ACCEPTED,
            )
    names = class_names(where)
    return {split: _with_files(folder, found) for split, found in read(where, names).items()}, names


def class_names(lists: pathlib.Path) -> tuple[str, ...]:
    """The classes of classInd.txt, in the order of their labels.

    Raises:
      UserError: the list does not have the official form.
    """
    names = []
    for place, line in _lines(lists / "classInd.txt"):
        number, _, name = line.partition(" ")
        if number != str(len(names) + 1) or not name:
            raise UserError(f"{place}: got {line!r}; accepted: {len(names) + 1} and a class")
        names.append(name)
    return tuple(names)


def read(lists: pathlib.Path, names: tuple[str, ...], split: int = 1) -> dict[str, list[Video]]:
    """The videos of the official training and test lists.

    Args:
      lists: the folder ucfTrainTestlist.
      names: of all classes, in the order of their labels.
      split: the number of the official split, 1 to 3.

    Returns:
      The videos of "train" and "test" in the order of their classes and names.

    Raises:
      UserError: a line does not have the official form, a group is in both lists, or a class has
        no video; names the list and the line.
    """
    videos = {
        name: sorted(
            _read(lists / f"{name}list{split:02d}.txt", names, labelled=name == "train"),
            key=lambda video: (video.label, video.name),
        )
        for name in ("train", "test")
    }
    groups = {name: {(v.label, v.group) for v in found} for name, found in videos.items()}
    for label, group in sorted(groups["train"] & groups["test"]):
        raise UserError(
            f"{lists}: got group {group} of {names[label]} in the training list and in the test "
            "list; accepted: the official lists, which share no group"
        )
    for name, found in groups.items():
        for label in sorted(set(range(len(names))) - {label for label, _ in found}):
            raise UserError(
                f"{lists}: got a {name} list without a video of {names[label]}; accepted: lists "
                "with videos of every class"
            )
    return videos


def cut_validation(videos: dict[str, list[Video]]) -> dict[str, list[Video]]:
    """Moves about 11 % of each class's training groups, its last ones, to a validation set.

    A class with one training group keeps it.

    Example:
      >>> train = [Video(f"g{group:02d}", 0, group) for group in range(1, 10)]
      >>> splits = cut_validation({"train": train, "test": []})
      >>> [video.name for video in splits["validation"]]
      ['g09']
    """
    held = set()
    for label in sorted({video.label for video in videos["train"]}):
        groups = sorted({video.group for video in videos["train"] if video.label == label})
        count = min(max(1, round(VALIDATION_SHARE * len(groups))), len(groups) - 1)
        held |= {(label, group) for group in groups[len(groups) - count :]}

    def is_held(video: Video) -> bool:
        return (video.label, video.group) in held

    return {
        "train": [video for video in videos["train"] if not is_held(video)],
        "validation": [video for video in videos["train"] if is_held(video)],
        "test": videos["test"],
    }


def _with_files(folder: pathlib.Path, videos: list[Video]) -> list[Video]:
    """The videos with their files; some names differ in case between the lists and the files."""
    actions = {video.name.partition("/")[0].lower() for video in videos}
    at = {
        f"{action.name}/{path.name}".lower(): path
        for action in folder.iterdir()
        if action.name.lower() in actions
        for path in action.glob("*")
    }
    found = []
    for video in videos:
        path = at.get(video.name.lower(), folder / video.name)
        found.append(dataclasses.replace(video, source=VideoFile(str(path))))
    return found


def _read(path: pathlib.Path, names: tuple[str, ...], labelled: bool) -> Iterator[Video]:
    """The videos of one list; the number of the class may also stand in a test list."""
    accepted = "CLASS/v_CLASS_gNN_cMM.avi" + (" NUMBER" if labelled else "")
    labels = {name.lower(): label for label, name in enumerate(names)}
    seen = set()

    def refuse(place: str, line: str, wanted: str) -> NoReturn:
        raise UserError(f"{place}: got {line!r}; accepted: {wanted}")

    for place, line in _lines(path):
        name, _, number = line.partition(" ")
        action, _, file = name.partition("/")
        number = number.strip()
        parts = _NAME.fullmatch(file)
        if parts is None or parts["action"].lower() != action.lower() or labelled > bool(number):
            refuse(place, line, accepted)
        if action.lower() not in labels:
            refuse(place, line, "the classes of classInd.txt")
        label = labels[action.lower()]
        name = f"{names[label]}/{file}"
        if name in seen:
            refuse(place, line, "each video once")
        seen.add(name)
        if number and number != str(label + 1):
            refuse(place, line, f"the number {label + 1}, which classInd.txt gives {action}")
        yield Video(name, label, int(parts["group"]))


def _lines(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    """The lines that are not empty, each with its place for errors."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read: {error}") from error
    lines = [(f"{path}, line {i}", line.strip()) for i, line in enumerate(text.splitlines(), 1)]
    lines = [(place, line) for place, line in lines if line]
    if not lines:
        raise UserError(f"the list {path} is empty")
    yield from lines
