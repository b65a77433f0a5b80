"""Pascal VOC and Cityscapes: reading every picture once, in parallel, into arrays of one size.

First every picture and its labels are read and checked. Then those that can be used are written:
their rows in the arrays are known by then. Both steps keep a journal, so a run that was killed goes
on where it stopped. Memory holds a few pictures at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator

import numpy as np

from experiments.data import label_images, store
from experiments.data.prepare import label_lists
from experiments.data.prepare.jobs import (
    MAX_SKIPPED,
    Report,
    array_file,
    checked,
    complete_lines,
    in_order,
    pool,
)
from experiments.data.prepare.label_lists import Picture
from experiments.data.prepare.label_pictures import Form, Unreadable, read
from experiments.data.prepare.staging import publish, require_space, staging
from experiments.system.errors import ConfigError
from experiments.system.files import write_json
from experiments.system.progress import progress

DEFAULT_SIZE = {"voc": 512, "cityscapes": 256}
STEP, SIZES = 64, (64, 1024)
_CHECKED = "checked.jsonl"

Splits = dict[str, list[Picture]]


def prepare(
    name: str,
    source: str,
    data_dir: str,
    workers: int | None = None,
    max_skipped: float = MAX_SKIPPED,
    size: int | None = None,
) -> Report:
    """Prepares the pictures and labels of a dataset.

    What is there and intact is left alone, unless the source has more to give: pictures that were
    skipped are tried again, and all is made anew where files have changed or another size is asked
    for.

    Args:
      name: "voc" or "cityscapes".
      source: the folder of the official files.
      data_dir: the folder to prepare the dataset under.
      workers: the number of processes that decode; by default one per usable CPU.
      max_skipped: the share of the pictures that may be missing or unreadable, 0 to 1.
      size: see `Form`; by default 512 for voc, 256 for cityscapes, and what is there is kept.

    Returns:
      What was prepared and what was skipped.

    Raises:
      UserError: names the setting and what is accepted. The work done by then is kept, and the same
        command goes on from it.
    """
    workers = checked(workers, max_skipped)
    if size is not None and (size % STEP or not SIZES[0] <= size <= SIZES[1]):
        raise ConfigError("size", size, f"multiples of {STEP} from {SIZES[0]} to {SIZES[1]}")
    if not source:
        raise ConfigError("source", "an empty text", label_lists.ACCEPTED[name])
    place = label_images.place(name, data_dir)
    splits = label_lists.pictures(name, source)
    manifest = None if not place.exists() or store.damage(place) else label_images.manifest(place)
    if manifest is not None and size in (None, manifest["size"]):
        form = Form(name, manifest["size"])
        with pool(workers) as run:
            changed = _has_changed(manifest, splits, form, run, workers)
        if not changed:
            _require_share(source, splits, manifest["skipped"], max_skipped)
            return Report(place, manifest["skipped"])
    form = Form(name, size or (manifest or {}).get("size") or DEFAULT_SIZE[name])
    with (
        pool(workers) as run,
        staging(data_dir, label_images.KINDS[name].folder, resume=True) as folder,
    ):
        stamps, skipped, found = _check(folder, splits, form, run, workers)
        _require_share(source, splits, skipped, max_skipped)
        if name == "cityscapes":
            _require_ids(source, splits, found)
        usable = {
            split: [picture for picture in found if picture.name not in skipped]
            for split, found in splits.items()
        }
        for split, found in usable.items():
            if not found:
                reasons = "; ".join(skipped[picture.name] for picture in splits[split][:3])
                got = f"no usable {split} picture ({reasons})"
                raise ConfigError("source", got, label_lists.ACCEPTED[name])
        try:
            built = _write(folder, usable, stamps, form, run, workers)
        except _Changed as error:
            _append(folder / _CHECKED, [error.name, {"error": error.reason}])
            raise ConfigError(
                "source",
                f"{error.name}, which was readable when it was checked and is not now: "
                f"{error.reason}",
                "pictures that do not change; run the same command again, it goes on with the "
                "picture as it is then",
            ) from error
        manifest = {
            "provenance": _provenance(name, form, usable, skipped),
            "source": os.fspath(store.expanded("source", source)),
            "size": form.size,
            "skipped": skipped,
            "pictures": {
                split: {picture.name: stamps[picture.name] for picture in found}
                for split, found in usable.items()
            },
        }
        write_json(built / label_images.MANIFEST, manifest)
        publish(built, place)
    return Report(place, skipped)


def _has_changed(manifest, splits: Splits, form: Form, run, workers: int) -> bool:
    """Whether the source gives other pictures than those that were prepared from it.

    A picture that is gone from the source does not count: it is there as it was prepared.
    """
    skipped, jobs = manifest["skipped"], []
    for split, found in splits.items():
        prepared = manifest["pictures"][split]
        for picture in found:
            if picture.name in skipped:
                jobs.append((picture, form))
                continue
            if picture.name not in prepared:
                return True
            with contextlib.suppress(OSError):
                if picture.stamp() != prepared[picture.name]:
                    return True
    if not jobs:
        return False
    done = in_order(run, _examine, jobs, workers)
    shown = progress(done, total=len(jobs), label="checking", unit="pictures")
    return any("error" not in found for _, found in shown)


def _check(
    folder: pathlib.Path, splits: Splits, form: Form, run, workers: int
) -> tuple[dict[str, list], dict[str, str], dict[str, list[int]]]:
    """By picture the stamps of those that can be used, why the others cannot, and their ids."""
    journal = folder / _CHECKED
    before = dict(_readable(complete_lines(journal)))
    found, jobs = {}, []
    for picture in (picture for part in splits.values() for picture in part):
        known = before.get(picture.name, {})
        # One that could not be read may have been replaced since.
        stamp = None
        with contextlib.suppress(OSError):
            stamp = picture.stamp()
        if stamp is not None and known.get("stamp") == stamp and "ids" in known:
            found[picture.name] = known
        else:
            jobs.append((picture, form))
    done = in_order(run, _examine, jobs, workers)
    with open(journal, "a", encoding="utf-8") as file:
        for name, result in progress(done, total=len(jobs), label="checking", unit="pictures"):
            found[name] = result
            file.write(json.dumps([name, result]) + "\n")
            file.flush()
            if "error" in result:
                print(f"skipped: {name}: {result['error']}", file=sys.stderr, flush=True)
    stamps = {name: result["stamp"] for name, result in found.items() if "stamp" in result}
    errors = {name: found[name]["error"] for name in found if name not in stamps}
    return stamps, errors, {name: found[name]["ids"] for name in stamps}


def _write(
    folder: pathlib.Path, usable: Splits, stamps: dict[str, list], form: Form, run, workers: int
) -> pathlib.Path:
    """Writes every usable picture to its row; returns the folder of the arrays."""
    plan = [(split, row, p) for split, found in usable.items() for row, p in enumerate(found)]
    # Another plan writes other rows, so the folder is named after the plan.
    named = json.dumps([form.size, [[split, p.name, stamps[p.name]] for split, _, p in plan]])
    built = folder / f"plan-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    journal = folder / f"{built.name}.done"
    for path in folder.glob("plan-*/"):
        if path != built:
            shutil.rmtree(path)
    built.mkdir(exist_ok=True)
    shapes = form.shapes()
    require_space(built, len(plan) * sum(math.prod(shape) for shape in shapes.values()))
    starts = {
        (split, kind): array_file(
            built / f"{split}_{kind}.npy", (len(found), *shape), journal
        )
        for split, found in usable.items()
        for kind, shape in shapes.items()
    }  # fmt: skip
    done = set(complete_lines(journal))
    jobs = []
    for split, row, picture in plan:
        if picture.name not in done:
            places = {
                kind: (
                    str(built / f"{split}_{kind}.npy"),
                    starts[split, kind] + row * math.prod(shape),
                )
                for kind, shape in shapes.items()
            }
            jobs.append((picture, form, places))
    with open(journal, "a", encoding="utf-8") as file:
        finished = in_order(run, _store, jobs, workers)
        for name in progress(finished, total=len(jobs), label="storing", unit="pictures"):
            file.write(name + "\n")
            file.flush()
    return built


def _examine(job) -> tuple[str, dict]:
    picture, form = job
    try:
        arrays = read(picture, form)
        # Edges are marked by a number of ids more; VOC has no edges, and its labels are not asked.
        ids = np.unique(arrays.get("edges", 0) % len(label_images.CITYSCAPES_IDS)).tolist()
        return picture.name, {"stamp": picture.stamp(), "ids": ids}
    except (Unreadable, OSError) as error:
        return picture.name, {"error": str(error)}


def _store(job) -> str:
    picture, form, places = job
    try:
        arrays = read(picture, form)
    except Unreadable as error:
        raise _Changed(picture.name, str(error)) from error
    for kind, (path, offset) in places.items():
        # A memory map would end the process on a full disk; a file raises an error.
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(arrays[kind].tobytes())
    return picture.name


class _Changed(Exception):
    """A picture that was checked cannot be read any more."""

    def __init__(self, name: str, reason: str):
        super().__init__(name, reason)  # An exception is rebuilt from these in another process.
        self.name, self.reason = name, reason


def _append(journal: pathlib.Path, line: list) -> None:
    with open(journal, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _readable(lines: list[str]) -> Iterator[tuple[str, dict]]:
    """The entries of the journal; damaged lines are left out."""
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            name, found = json.loads(line)
            if isinstance(found, dict):
                yield name, found


def _require_share(source: str, splits: Splits, skipped: dict[str, str], most: float) -> None:
    """Raises where more than this share of the pictures was skipped."""
    names = [picture.name for found in splits.values() for picture in found]
    reasons = [f"{name}: {skipped[name]}" for name in names if name in skipped]
    if len(reasons) > most * len(names):
        raise ConfigError(
            "source",
            f"{source}, where {len(reasons)} of {len(names)} pictures "
            f"({100 * len(reasons) / len(names):.1f} %) cannot be used ({'; '.join(reasons[:3])})",
            f"at most {100 * most:g} %; complete the folder and run the same command again, or "
            "allow more with --max_skipped",
        )


def _require_ids(source: str, splits: Splits, ids: dict[str, list[int]]) -> None:
    """Raises where the labels of a city of Cityscapes look like training ids.

    Those are 0 to 18 and a number for void, 255 or 19. Of the ids, the commonest of things (cars,
    vegetation, sky, persons) are above; a single picture may have none, but not a city.
    """
    cities: dict[str, set[int]] = {}
    for picture in (picture for found in splits.values() for picture in found):
        city = os.path.dirname(picture.labels)
        cities.setdefault(city, set()).update(ids.get(picture.name, ()))
    for city, found in cities.items():
        found -= {len(label_images.CITYSCAPES_IDS) - 1}  # stored as 255
        if found and max(found) <= len(label_images.CITYSCAPES_TRAINED):
            raise ConfigError(
                "source",
                f"{source}, where the labels in {city} are {min(found)} to {max(found)} alone, as "
                "training ids are",
                "labelIds.png with Cityscapes's own ids (7 is road, 23 is sky, 26 is car)",
            )


def _provenance(name: str, form: Form, usable: Splits, skipped: dict[str, str]) -> str:
    counts = " + ".join(f"{len(found)} {split}" for split, found in usable.items())
    if name == "voc":
        extra = sum(os.sep + "SegmentationClassAug" in p.labels for p in usable["train"])
        of = f" ({extra} with the labels of SegmentationClassAug)" if extra else ""
        kind = (
            f"Pascal VOC 2012, the official lists, test: val.txt{of}; centred on squares of "
            f"{form.size} pixels"
        )
    else:
        kind = (
            f"Cityscapes, fine labels, test: the official val; scaled to {form.width} x "
            f"{form.size} pixels"
        )
    return f"{kind}; {counts} pictures, {len(skipped)} were skipped"
