"""UCF-101: decoding every video once, in parallel, into arrays of clips.

First the frames of every video are counted. Then the clips of those that can be used are written:
the rows of each video in the arrays are known by then. Both steps keep a journal, so a run that was
killed goes on where it stopped. Memory holds a few videos at a time.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.data import store, ucf101
from experiments.data.prepare import ucf101_lists, ucf101_tfds, video
from experiments.data.prepare.jobs import (
    MAX_SKIPPED,
    Report,
    array_file,
    checked,
    complete_lines,
    in_order,
    pool,
)
from experiments.data.prepare.staging import publish, require_space, staging
from experiments.data.prepare.ucf101_lists import Video
from experiments.system.errors import ConfigError, UserError
from experiments.system.files import write_json
from experiments.system.progress import progress

_CLIP_BYTES = int(np.prod(video.CLIP_SHAPE))
_COUNTED = "counted.jsonl"


def prepare(
    source: str,
    data_dir: str,
    classes: int = 10,
    workers: int | None = None,
    lists: str | None = None,
    max_skipped: float = MAX_SKIPPED,
) -> Report:
    """Prepares the clips of the first classes.

    Clips that are there and intact are left alone, unless the source has more to give: videos that
    were skipped are tried again, and so are those whose files have changed.

    Args:
      source: a folder that holds UCF-101 and ucfTrainTestlist, or a `ucf101` folder of TFDS.
      data_dir: the folder to prepare the clips under.
      classes: the number of classes, 2 to 101; the paper takes 10.
      workers: the number of processes that decode; by default one per usable CPU.
      lists: the folder ucfTrainTestlist, for a source of TFDS that has none beside it.
      max_skipped: the share of the listed videos that may be missing or unreadable, 0 to 1.

    Returns:
      What was prepared and what was skipped.

    Raises:
      UserError: names the setting and what is accepted. The work done by then is kept, and the same
        command goes on from it.
    """
    workers = checked(workers, max_skipped)
    place = ucf101.place(data_dir)
    listed, names = _listed(source, lists)
    if not 2 <= classes <= len(names):
        raise ConfigError("classes", classes, f"2 to {len(names)}")
    manifest = None if not place.exists() or store.damage(place) else ucf101.manifest(place)
    if manifest is not None:  # more classes than asked for are not thrown away
        classes = min(max(classes, len(manifest["class_names"])), len(names))
    names, splits = names[:classes], _first_classes(listed, classes)
    with pool(workers) as run:
        if manifest is not None and not _has_changed(manifest, splits, names, run, workers):
            _require_share(source, splits, manifest["skipped"], max_skipped)
            return Report(place, manifest["skipped"])
        with staging(data_dir, ucf101.FOLDER, resume=True) as folder:
            probes = _count(folder, splits, run, workers)
            skipped = {name: probe["error"] for name, probe in probes.items() if "error" in probe}
            usable = {
                split: [video for video in found if video.name not in skipped]
                for split, found in splits.items()
            }
            _require_share(source, splits, skipped, max_skipped)
            _require_videos(splits, usable, names, skipped)
            try:
                built = _write(folder, usable, probes, run, workers)
            except _Changed as error:
                _forget(folder, error.name, error.reason)
                raise ConfigError(
                    "source",
                    f"{error.name}, which was readable when its frames were counted and is not "
                    f"now: {error.reason}",
                    "videos that do not change; run the same command again, it goes on with the "
                    "video as it is then",
                ) from error
            manifest = {
                "class_names": names,
                "provenance": _provenance(source, probes, skipped),
                "source": os.fspath(store.expanded("source", source)),
                "lists": lists and os.fspath(store.expanded("lists", lists)),
                "skipped": skipped,
                "videos": {
                    split: {video.name: probes[video.name] for video in found}
                    for split, found in usable.items()
                },
            }
            write_json(built / ucf101.MANIFEST, manifest)
            publish(built, place)
    return Report(place, skipped)


def _listed(source: str, lists: str | None) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of the official training and test lists, and the names of all classes."""
    if not source:
        raise ConfigError("source", "an empty text", ucf101_lists.SOURCE_ACCEPTED)
    if lists == "":
        raise ConfigError("lists", "an empty text", ucf101_lists.LISTS_ACCEPTED)
    if ucf101_tfds.is_folder(source):
        return ucf101_tfds.videos(source, lists)
    if importlib.util.find_spec("av") is None:
        raise UserError("ucf101 is decoded by PyAV; install it with `pip install -e '.[video]'`")
    return ucf101_lists.videos(source, lists)


def _first_classes(listed: dict[str, list[Video]], classes: int) -> dict[str, list[Video]]:
    """The videos of the first classes in the three splits."""
    chosen = {
        split: [item for item in found if item.label < classes] for split, found in listed.items()
    }
    return ucf101_lists.cut_validation(chosen)


def _has_changed(manifest, splits, names, run, workers) -> bool:
    """Whether the source gives other clips than those that were prepared from it.

    A video that is gone from the source does not count: its clips are there.
    """
    if list(names) != manifest["class_names"][: len(names)]:
        return True
    skipped, before, jobs = manifest["skipped"], {}, []
    for split, found in splits.items():
        before |= manifest["videos"].get(split, {})
        for item in found:
            prepared = manifest["videos"].get(split, {}).get(item.name)
            if item.name not in skipped and prepared is None:
                return True  # The lists have changed.
            # Manifests of earlier versions hold the number of frames alone.
            stamp = prepared["stamp"] if isinstance(prepared, dict) else item.source.stamp()
            if item.name in skipped or stamp != item.source.stamp():
                jobs.append((item.name, item.source))
    listed = {item.name for found in splits.values() for item in found}
    if any(name.partition("/")[0] in names and name not in listed for name in before):
        return True
    if not jobs:
        return False
    done = in_order(run, _probe, jobs, workers)
    found = dict(progress(done, total=len(jobs), label="checking", unit="videos"))
    return any(_contents(found[name]) not in (None, _contents(before.get(name))) for name in found)


def _contents(probe: Any) -> tuple | None:
    """The number and the size of a video's frames, and its size in bytes; None if unreadable."""
    if not isinstance(probe, dict) or "error" in probe:
        return None
    return probe["frames"], probe["height"], probe["width"], probe["stamp"][0]


def _count(folder, splits, run, workers) -> dict[str, dict]:
    """By video: {"frames", "height", "width", "stamp"} (stamp: of its file), or {"error"}."""
    journal = folder / _COUNTED
    before = dict(_readable(complete_lines(journal)))
    probes, jobs = {}, []
    for item in (item for found in splits.values() for item in found):
        # A video that could not be read may have been replaced since, also by a file as large.
        probe = before.get(item.name, {"error": ""})
        if "error" in probe or probe["stamp"] != item.source.stamp():
            jobs.append((item.name, item.source))
        else:
            probes[item.name] = probe
    with open(journal, "a", encoding="utf-8") as file:
        done = in_order(run, _probe, jobs, workers)
        for name, probe in progress(done, total=len(jobs), label="counting", unit="videos"):
            probes[name] = probe
            file.write(json.dumps([name, probe]) + "\n")
            file.flush()
            if "error" in probe:
                print(f"skipped: {name}: {probe['error']}", file=sys.stderr, flush=True)
    return probes


def _write(folder, usable, probes, run, workers) -> pathlib.Path:
    """Writes the clips of every usable video to its rows; returns the folder of the arrays."""
    plan = [
        (split, row * video.CLIPS, item)
        for split, found in usable.items()
        for row, item in enumerate(found)
    ]
    # Another plan writes other rows, so the folder is named after the plan.
    named = json.dumps([[split, row, item.name, probes[item.name]] for split, row, item in plan])
    built = folder / f"plan-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    journal = folder / f"{built.name}.done"
    offsets = {}
    for path in folder.glob("plan-*/"):
        if path != built:
            shutil.rmtree(path)
    built.mkdir(exist_ok=True)
    require_space(built, _CLIP_BYTES * video.CLIPS * len(plan))
    for split, found in usable.items():
        labels = np.repeat(np.array([item.label for item in found], np.int32), video.CLIPS)
        np.save(built / f"{split}_labels.npy", labels)
        shape = (len(labels), *video.CLIP_SHAPE)
        offsets[split] = array_file(built / f"{split}.npy", shape, journal)
    done = set(complete_lines(journal))
    jobs = []
    for split, row, item in plan:
        if item.name not in done:
            at = offsets[split] + row * _CLIP_BYTES
            jobs.append(
                (
                    item.name,
                    item.source,
                    probes[item.name]["frames"],
                    str(built / f"{split}.npy"),
                    at,
                )
            )
    with open(journal, "a", encoding="utf-8") as file:
        finished = in_order(run, _extract, jobs, workers)
        for name in progress(finished, total=len(jobs), label="decoding", unit="videos"):
            file.write(name + "\n")
            file.flush()
    return built


def _probe(job) -> tuple[str, dict]:
    name, source = job
    try:
        frames, height, width = source.probe()
        video.starts(frames)
    except video.Unreadable as error:
        return name, {"error": str(error)}
    return name, {"frames": frames, "height": height, "width": width, "stamp": source.stamp()}


def _extract(job) -> str:
    name, source, frames, path, offset = job
    try:
        data = video.clips(source, frames).tobytes()
    except video.Unreadable as error:
        raise _Changed(name, str(error)) from error
    # A memory map would end the process on a full disk; a file raises an error.
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
    return name


class _Changed(Exception):
    """A video that was counted cannot be decoded any more."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # An exception is rebuilt from these in another process.
        self.name, self.reason = name, reason


def _forget(folder: pathlib.Path, name: str, reason: str) -> None:
    """Makes the next run count the frames of the video again."""
    with open(folder / _COUNTED, "a", encoding="utf-8") as file:
        file.write(json.dumps([name, {"error": reason}]) + "\n")


def _readable(lines: list[str]) -> Iterator[tuple[str, dict]]:
    """The entries of the journal of counts; damaged lines are left out."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            name, probe = json.loads(line)
            if "error" in probe or {"frames", "height", "width", "stamp"} <= set(probe):
                yield name, probe


def _require_share(
    source: str, splits: dict[str, list[Video]], skipped: dict[str, str], most: float
) -> None:
    """Raises where more than this share of the listed videos was skipped."""
    reasons = [
        f"{item.name}: {skipped[item.name]}"
        for found in splits.values()
        for item in found
        if item.name in skipped
    ]
    total = sum(len(found) for found in splits.values())
    if len(reasons) > most * total:
        share = 100 * len(reasons) / total
        raise ConfigError(
            "source",
            f"{source}, where {len(reasons)} of {total} listed videos ({share:.1f} %) are missing "
            f"or unreadable ({'; '.join(reasons[:3])})",
            f"at most {100 * most:g} %; complete the folder and run the same command again, or "
            "allow more with --max_skipped",
        )


def _require_videos(
    listed: dict[str, list[Video]],
    usable: dict[str, list[Video]],
    names: tuple[str, ...],
    skipped: dict[str, str],
) -> None:
    """Raises where a class has no usable video for training or none for testing."""
    for split in ("train", "test"):
        found = {item.label for item in usable[split]}
        for label, name in enumerate(names):
            if label not in found:
                reasons = [
                    f"{item.name}: {skipped[item.name]}"
                    for item in listed[split]
                    if item.label == label and item.name in skipped
                ]
                raise ConfigError(
                    "source",
                    f"no usable {split} video of the class {name} ({'; '.join(reasons[:3])}, of "
                    f"{len(reasons)})",
                    f"videos of at least {video.FRAMES} frames",
                )


def _provenance(source: str, probes: dict[str, dict], skipped: dict[str, str]) -> str:
    good = [probe for probe in probes.values() if "error" not in probe]
    small = sum(min(probe["height"], probe["width"]) < video.CROP for probe in good)
    sizes = collections.Counter(f"{probe['width']}x{probe['height']}" for probe in good)
    kind = "a TFDS folder" if ucf101_tfds.is_folder(source) else "the official video files"
    return (
        f"UCF-101 from {kind}, the official split, validation cut from its training list by group; "
        f"{video.CLIPS} clips of {video.FRAMES} frames equally spaced in time from each of "
        f"{len(good)} videos ({', '.join(f'{n} of {size}' for size, n in sizes.most_common(3))}), "
        f"a centre crop of {video.CROP}x{video.CROP} averaged over 2x2 pixels; "
        f"{small} videos smaller than the crop were scaled up, {len(skipped)} were skipped"
    )
