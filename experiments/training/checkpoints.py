"""Checkpoints of one trial: complete or absent, verified when read, the last good one kept.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete, so a kill
leaves the previous one. Each save is read back, apart from the arrays' contents: Orbax can leave
out its manifest and not say so. Nor does it notice a byte that changes on the disk later; the
digest saved beside the state does.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore

from experiments.system.errors import ConfigError, SaveError, UserError, is_disk_full
from experiments.system.files import finite

KEPT = 2


class Checkpoints:
    """The checkpoints in one folder; the two newest are kept.

    Args:
      directory: made when the first checkpoint is saved.
      identity: what the trial's result depends on (settings, seed, data), as values for JSON. It is
        saved in every checkpoint, and a checkpoint of another identity is refused.
      notice: called with a line of text when a checkpoint turns out to be unusable.
    """

    def __init__(
        self,
        directory: pathlib.Path,
        identity: dict[str, Any] | None = None,
        notice: Callable[[str], None] = print,
    ):
        self._directory = pathlib.Path(directory).absolute()
        self._identity = json.loads(json.dumps(finite(identity or {})))
        self._notice = notice

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        if not self._directory.exists():  # Opening a manager would make the folder.
            return []
        with self._manager() as manager:
            return sorted(manager.all_steps())

    def save(self, step: int, state: Any, **extra: Any) -> None:
        """Saves the state, and values for JSON beside it.

        Raises:
          SaveError: what was written lacks a part.
        """
        tree = jax.device_get(flax.serialization.to_state_dict(state))
        beside = _sealed({"digest": digest(tree), "identity": self._identity, **extra})
        with self._manager() as manager:
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    extra=ocp.args.JsonSave(beside),
                ),
            )
        self._read_back(self._directory / str(step), beside, len(jax.tree.leaves(tree)))

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None where there is none.

        A checkpoint that cannot be read, or whose digest is wrong, is set aside in a folder
        "NAME.corrupt" and the one before it is taken; `notice` says so.

        Args:
          like: a state of the same structure.

        Returns:
          (state, extra values of `save`).

        Raises:
          UserError: the newest good checkpoint belongs to other settings, another seed or other
            data; names what differs.
        """
        template = flax.serialization.to_state_dict(like)
        steps = self.steps()
        for step in reversed(steps):
            try:
                # The identity first: a state of other settings may not even have this structure.
                extra = read_extra(self._directory / str(step))
                self._require_identity(step, extra)
                with self._manager() as manager:
                    saved = manager.restore(
                        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template))
                    )
                tree = jax.device_get(saved.state)
                if digest(tree) != extra["digest"]:
                    raise ValueError("its contents are not those that were saved")
            except UserError:
                raise
            except Exception as error:  # A damaged file makes the readers raise many types.
                aside = self._set_aside(step)
                before = "the one before it" if step != steps[0] else "step 0"
                self._notice(
                    f"checkpoint {self._directory / str(step)} is corrupt ({_reason(error)}); "
                    f"moved to {aside}, starting from {before}"
                )
                continue
            return flax.serialization.from_state_dict(like, tree), extra
        return None

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints of later steps; an empty folder is removed too.

        Orbax saves no step that is older than its newest one. The resumed run makes them again.
        """
        if not self._directory.exists():
            return
        with self._manager() as manager:
            for later in manager.all_steps():
                if later > step:
                    manager.delete(later)
            empty = not manager.all_steps()
        if empty:
            shutil.rmtree(self._directory)

    def _read_back(self, saved: pathlib.Path, beside: dict[str, Any], arrays: int) -> None:
        """Reads the record and the names of the arrays, not their contents: a few milliseconds."""
        try:
            if read_extra(saved) != beside:
                raise ValueError("its record is another one")
            found = _count_arrays(saved / "state")
            if found != arrays:
                raise ValueError(f"its manifest names {found} of {arrays} arrays")
        except Exception as error:  # As in `restore`.
            raise SaveError(f"checkpoint {saved} was not saved whole ({_reason(error)})") from error

    def _require_identity(self, step: int, extra: dict[str, Any]) -> None:
        saved = extra.get("identity", {})
        different = differences(saved, self._identity)
        if different:
            raise UserError(
                f"workdir: checkpoint {self._directory / str(step)} belongs to another run (it "
                f"differs in {', '.join(different)}); accepted: a new folder, or the settings of "
                "that run with --resume"
            )

    def _set_aside(self, step: int) -> pathlib.Path:
        aside = self._directory.parent / f"{self._directory.name}.corrupt"
        aside.mkdir(parents=True, exist_ok=True)
        target = next(
            path
            for path in (aside / f"{step}.{number}" for number in range(10_000))
            if not path.exists()
        )
        (self._directory / str(step)).rename(target)
        return target

    def _manager(self) -> ocp.CheckpointManager:
        self._directory.mkdir(parents=True, exist_ok=True)
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
                create=False,
                multiprocessing_options=_one_process(),
            ),
            item_names=("state", "extra"),
        )


def require_savable(workdir: pathlib.Path) -> None:
    """Saves a tiny checkpoint in a folder and removes it: only a save tells.

    Orbax takes brackets in a path for a pattern and "gs:" for a bucket.

    Raises:
      ConfigError: it does not read back.
    """
    tried = workdir / ".checkpoint"
    try:
        if "\\" in workdir.as_posix():  # Not tried: it would write to a/b for a folder "a\b".
            raise ValueError("it reads a backslash as a slash")
        shutil.rmtree(tried, ignore_errors=True)  # A killed process may have left it.
        Checkpoints(tried).save(0, {"array": np.zeros(1)})
    except Exception as error:  # As in `restore`.
        if is_disk_full(error):
            raise
        raise ConfigError(
            "workdir",
            f"{workdir}, where Orbax cannot save a checkpoint ({_reason(error)})",
            'a folder whose whole path is text of this locale, without [ ], a backslash or "gs:"',
        ) from error
    finally:
        shutil.rmtree(tried, ignore_errors=True)


def read_latest(directory: pathlib.Path) -> dict[str, Any]:
    """The newest checkpoint of a folder: {"step", "state", "sums"} as nested dicts of arrays.

    Changes nothing there, so a run that is still going may be looked at.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    newest = _newest(directory)
    try:
        extra = read_extra(newest)
        with ocp.StandardCheckpointer(multiprocessing_options=_one_process()) as reader:
            tree = jax.device_get(reader.restore(newest / "state"))
    except Exception as error:  # A damaged file makes the readers raise many types.
        raise ValueError(f"the checkpoint {newest} is damaged ({_reason(error)})") from error
    if digest(tree) != extra["digest"]:
        raise ValueError(f"the checkpoint {newest} is damaged: its digest is wrong")
    return tree


def read_latest_extra(directory: pathlib.Path) -> dict[str, Any]:
    """The values for JSON in the newest checkpoint of a folder; {} where they cannot be read."""
    try:
        return read_extra(_newest(directory))
    except Exception:  # No checkpoint, or a damaged one: there is nothing to learn from it.
        return {}


def read_extra(checkpoint: pathlib.Path) -> dict[str, Any]:
    """The values for JSON in one checkpoint.

    Raises:
      ValueError: they are not those that were saved.
    """
    options = _one_process()
    handler = ocp.JsonCheckpointHandler(multiprocessing_options=options)
    with ocp.Checkpointer(handler, multiprocessing_options=options) as reader:
        extra = dict(reader.restore(checkpoint / "extra"))
    if _sealed(extra) != extra:
        raise ValueError("its record is not the one that was saved")
    return extra


def _count_arrays(folder: pathlib.Path) -> int:
    """How many arrays the manifest of a saved state names."""
    base = {"driver": "file", "path": f"{folder}/"}
    store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
    return sum(key.endswith(b".zarray") for key in store.list().result())


def _reason(error: Exception) -> str:
    """The first line of an error."""
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)


def digest(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def _sealed(extra: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back, and "seal", their SHA-256."""
    text = json.dumps(
        finite({key: value for key, value in extra.items() if key != "seal"}), sort_keys=True
    )
    return {**json.loads(text), "seal": hashlib.sha256(text.encode()).hexdigest()}


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Where two nested dicts differ, each place as "path: old there, new asked for"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [x for k in keys for x in differences(old.get(k), new.get(k), f"{path}.{k}")]
    return [] if old == new else [f"{path[1:]}: {old} there, {new} asked for"]


def _one_process() -> ocp.options.MultiprocessingOptions:
    """Orbax waits for no other process: of several that train together, one saves for all."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    this = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=f"process{this}"
    )


def _newest(directory: pathlib.Path) -> pathlib.Path:
    # Orbax writes elsewhere and renames, so a folder that is named by a number is complete.
    steps = [path for path in directory.glob("*") if path.name.isdecimal()]
    if not steps:
        raise FileNotFoundError(f"no checkpoint in {directory}")
    return max(steps, key=lambda path: int(path.name)).absolute()
