"""UCF-101: decoding every video once, in parallel, into arrays of clips.

First every video is counted, then the clips of those that can be used are written, each video to
rows that are known by then. Both steps keep a journal, so that a run that is killed goes on where
it was, and memory holds a few videos at a time.
"""

from __future__ import annotations

import collections
import concurrent.futures.process
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import multiprocessing
import os
import pathlib
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np

from experiments.data import store, ucf101
from experiments.data.prepare import ucf101_lists, ucf101_tfds, video
from experiments.data.prepare.ucf101_lists import Video
from experiments.system.progress import progress

_CLIP_BYTES = int(np.prod(video.CLIP_SHAPE))
_COUNTED = "counted.jsonl"
_JOBS_AHEAD = 4  # per worker: enough to keep it busy, few enough to keep memory bounded


@dataclasses.dataclass(frozen=True)
class Report:
    """What was prepared.

    Args:
      folder: where.
      skipped: the videos that no clips could be taken from, each with the reason.
    """

    folder: pathlib.Path
    skipped: dict[str, str]


def prepare(
    source: str,
    data_dir: str,
    classes: int = 10,
    workers: int | None = None,
    lists: str | None = None,
) -> Report:
    """Prepares the clips of the first classes; those that are there and intact are left alone.

    Args:
      source: a folder that holds UCF-101 and ucfTrainTestlist, or a `ucf101` folder of TFDS.
      data_dir: the folder to prepare the clips under.
      classes: how many, 2 to 101; the paper takes 10.
      workers: processes that decode; one per CPU by default.
      lists: the folder ucfTrainTestlist, for a source of TFDS that has none beside it.

    Returns:
      What was prepared and what was skipped.

    Raises:
      ValueError: naming the flag and what is accepted. What is done by then is kept, and the same
        command goes on from it.
    """
    if classes < 2:
        raise ValueError(f"--classes: got {classes}; accepted are 2 to 101")
    place = ucf101.place(data_dir)
    if place.exists() and store.damage(place) is None:
        manifest = json.loads((place / "manifest.json").read_text())
        if len(manifest["class_names"]) >= classes:
            return Report(place, manifest["skipped"])
    workers = workers or os.cpu_count()
    splits, names = _videos(source, lists, classes)
    with store.staging(data_dir, ucf101.FOLDER, resume=True) as folder:
        with _pool(workers) as run:
            probes = _count(folder, splits, run, workers)
            skipped = {name: probe["error"] for name, probe in probes.items() if "error" in probe}
            usable = {
                split: [video for video in found if video.name not in skipped]
                for split, found in splits.items()
            }
            _require_videos(splits, usable, names, skipped)
            try:
                built = _write(folder, usable, probes, run, workers)
            except _Changed as error:
                _forget(folder, error.name, error.reason)
                raise ValueError(
                    f"--source: {error.name} was readable when its frames were counted and is not "
                    f"now: {error.reason}; run the same command again, it goes on with the video "
                    "as it is then"
                ) from error
        manifest = {
            "class_names": names,
            "provenance": _provenance(source, probes, skipped),
            "skipped": skipped,
            "videos": {
                split: {video.name: probes[video.name]["frames"] for video in found}
                for split, found in usable.items()
            },
        }
        (built / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        store.publish(built, place)
    return Report(place, skipped)


def _videos(source, lists, classes) -> tuple[dict[str, list[Video]], tuple[str, ...]]:
    """The videos of the three splits that are asked for, and the names of their classes."""
    if ucf101_tfds.is_folder(source):
        listed, names = ucf101_tfds.videos(source, lists)
    elif importlib.util.find_spec("av") is None:
        raise ValueError("ucf101 is decoded by PyAV; install it with `pip install -e '.[video]'`")
    else:
        listed, names = ucf101_lists.videos(source, lists)
    if not 2 <= classes <= len(names):
        raise ValueError(f"--classes: got {classes}; accepted are 2 to {len(names)}")
    chosen = {
        split: [item for item in found if item.label < classes] for split, found in listed.items()
    }
    return ucf101_lists.cut_validation(chosen), names[:classes]


def _count(folder, splits, run, workers) -> dict[str, dict]:
    """By video: {"frames", "height", "width"} or {"error"}, and the file's "stamp"."""
    journal = folder / _COUNTED
    before = dict(_readable(_complete_lines(journal)))
    probes, jobs = {}, []
    for item in (item for found in splits.values() for item in found):
        # A video that could not be read may have been replaced since, also by one as long.
        probe = before.get(item.name, {"error": ""})
        if "error" in probe or probe["stamp"] != item.source.stamp():
            jobs.append((item.name, item.source))
        else:
            probes[item.name] = probe
    with open(journal, "a", encoding="utf-8") as file:
        done = _in_order(run, _probe, jobs, workers)
        for name, probe in progress(done, total=len(jobs), label="counting", unit="videos"):
            probes[name] = probe
            file.write(json.dumps([name, probe]) + "\n")
            file.flush()
            if "error" in probe:
                print(f"skipped: {name}: {probe['error']}", file=sys.stderr, flush=True)
    return probes


def _write(folder, usable, probes, run, workers) -> pathlib.Path:
    """Writes the clips of every usable video to its rows; the folder of the arrays."""
    plan = [
        (split, row * video.CLIPS, item)
        for split, found in usable.items()
        for row, item in enumerate(found)
    ]
    named = json.dumps([[split, row, item.name, probes[item.name]] for split, row, item in plan])
    built = folder / hashlib.sha256(named.encode()).hexdigest()[:16]  # another plan, other rows
    journal = folder / f"{built.name}.done"
    offsets = {}
    for path in folder.iterdir():
        if path.is_dir() and path != built:
            shutil.rmtree(path)
    built.mkdir(exist_ok=True)
    store.require_space(built, _CLIP_BYTES * video.CLIPS * len(plan))
    for split, found in usable.items():
        labels = np.repeat(np.array([item.label for item in found], np.int32), video.CLIPS)
        np.save(built / f"{split}_labels.npy", labels)
        offsets[split] = _array_file(built / f"{split}.npy", len(labels))
    done = set(_complete_lines(journal))
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
        finished = _in_order(run, _extract, jobs, workers)
        for name in progress(finished, total=len(jobs), label="decoding", unit="videos"):
            file.write(name + "\n")
            file.flush()
    return built


def _array_file(path: pathlib.Path, clips: int) -> int:
    """Makes a .npy file of so many clips, unless it is there; where its data begins."""
    shape = (clips, *video.CLIP_SHAPE)
    if not path.exists() or path.stat().st_size < clips * _CLIP_BYTES:
        with open(path, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + clips * _CLIP_BYTES)
    return path.stat().st_size - clips * _CLIP_BYTES


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
    # Not through a memory map: on a full disk that ends the process instead of raising.
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)
    return name


def _in_order(run: Callable, function: Callable, jobs: list, workers: int) -> Iterator:
    """The results of the jobs in their order, with a bounded number of them under way."""
    ahead = collections.deque()
    for job in jobs:
        ahead.append(run(function, job))
        if workers == 1 or len(ahead) > _JOBS_AHEAD * workers:
            yield ahead.popleft().result()
    while ahead:
        yield ahead.popleft().result()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[Callable]:
    """A function that starts function(job) and returns its future; one worker is this process."""
    if workers == 1:
        yield _run_here
        return
    executor = concurrent.futures.ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )
    try:
        yield executor.submit
    except concurrent.futures.process.BrokenProcessPool as error:
        raise ValueError(
            "--workers: a process that decodes was ended from outside, perhaps for want of memory; "
            f"got {workers}; try fewer, the work done is kept"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _run_here(function: Callable, job) -> concurrent.futures.Future:
    future = concurrent.futures.Future()
    future.set_result(function(job))
    return future


def _end_with_parent() -> None:
    """Ends this worker with the process that started it, which alone hears Ctrl-C.

    A worker whose parent is killed would wait for its next job for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


class _Changed(Exception):
    """A video that was counted cannot be decoded any more."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # As they are, so that it passes between processes.
        self.name, self.reason = name, reason


def _forget(folder: pathlib.Path, name: str, reason: str) -> None:
    """Has the video counted anew by the next run."""
    with open(folder / _COUNTED, "a", encoding="utf-8") as file:
        file.write(json.dumps([name, {"error": reason}]) + "\n")


def _readable(lines: list[str]) -> Iterator[tuple[str, dict]]:
    """What the lines of the journal of counts say; a damaged line is as if it were not there."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            name, probe = json.loads(line)
            if "error" in probe or {"frames", "height", "width", "stamp"} <= set(probe):
                yield name, probe


def _complete_lines(path: pathlib.Path) -> list[str]:
    """The lines of a journal; one that was being written when the process was killed is cut off."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return whole.decode("utf-8", errors="replace").splitlines()


def _require_videos(
    listed: dict[str, list[Video]],
    usable: dict[str, list[Video]],
    names: tuple[str, ...],
    skipped: dict[str, str],
) -> None:
    for split in ("train", "test"):
        found = {item.label for item in usable[split]}
        for label, name in enumerate(names):
            if label not in found:
                reasons = [
                    f"{item.name}: {skipped[item.name]}"
                    for item in listed[split]
                    if item.label == label and item.name in skipped
                ]
                raise ValueError(
                    f"--source: the class {name} has no {split} video that clips can be taken from "
                    f"({'; '.join(reasons[:3])}, of {len(reasons)}); accepted are videos of at "
                    f"least {video.FRAMES} frames"
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
