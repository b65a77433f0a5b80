"""What of an earlier run in the same workdir is kept, and what is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from experiments.system.errors import UserError
from experiments.training import tensorboard
from experiments.training.checkpoints import differences, read_latest_extra
from experiments.training.workdir import Workdir

Identity = dict[str, Any]  # what the result of one trial depends on
Wanted = Mapping[str, Mapping[int, Identity]]  # by run and seed


def short(identity: Identity) -> str:
    """An identity as it stands in a row of summary.json."""
    text = json.dumps(identity, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def finished(previous: dict[str, Any], wanted: Wanted) -> dict[str, list[dict[str, Any]]]:
    """The rows of an earlier summary.json that need no training: those that ended well.

    Args:
      previous: the earlier summary.
      wanted: the trials of this study.

    Returns:
      Rows by the name of the run.

    Raises:
      UserError: a row belongs to other settings or other data, or to a trial that is not wanted.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in wanted}
    for run in previous["runs"]:
        name = run["name"]
        for row in run["trials"]:
            identity = wanted.get(name, {}).get(row["seed"])
            if identity is None:
                _refuse_left_over("summary.json", name, row["seed"])
            elif "error" in row:
                continue
            elif row.get("identity") != short(identity):
                changed = ", ".join(differences(run.get("settings", {}), identity["settings"]))
                raise UserError(
                    f"workdir: summary.json holds a trial of {name}, seed {row['seed']}, of "
                    f"other settings or data ({changed or 'the data differ'}); accepted: a "
                    "new folder, or the settings of that trial"
                )
            else:
                rows[name].append(row)
    return rows


def check_checkpoints(folder: Workdir, wanted: Wanted) -> None:
    """Looks at all checkpoints, where no config.json says what they belong to.

    Raises:
      UserError: a trial has other settings, or is not wanted.
    """
    for path in sorted((folder.path / "checkpoints").glob("*/seed_*")):
        seed = path.name.removeprefix("seed_").removesuffix("_best")
        if not seed.isdecimal():
            continue
        identity = wanted.get(path.parent.name, {}).get(int(seed))
        saved = read_latest_extra(path).get("identity")
        if identity is None:
            _refuse_left_over(str(path), path.parent.name, int(seed))
        if saved is None:  # Damaged: the trial sets it aside.
            continue
        changed = differences(saved, json.loads(json.dumps(identity, default=str)))
        if changed:
            raise UserError(
                f"workdir: checkpoint {path} belongs to another run (it differs in "
                f"{', '.join(changed)}); accepted: a new folder, or the settings of that run with "
                "--resume"
            )


def restore_files(folder: Workdir, run: str, seed: int, notice: Callable[[str], None]) -> None:
    """Brings lost lines and events of a finished trial back from its checkpoint."""
    records = read_latest_extra(folder.checkpoints(run, seed)).get("records", [])
    if not records:
        return
    found = folder.read_metrics(run, seed)
    lost = [x["step"] for x in found] != [x["step"] for x in records]
    if lost:
        folder.replace_metrics(run, seed, records)
        notice(f"{run}, seed {seed}: metrics.jsonl restored from the last checkpoint")
    events = folder.tensorboard(run, seed)
    if lost or not any(events.glob("events*")):
        tensorboard.rewrite(events, records, folder.pictures(run, seed))


def _refuse_left_over(where: str, run: str, seed: int) -> None:
    raise UserError(
        f"workdir: {where} holds a trial of {run}, seed {seed}, which is not asked for; accepted: "
        "a new folder, or the trials and runs of that study, and more"
    )
