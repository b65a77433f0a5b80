"""Checkpoints of one trial: complete or absent, verified when read, the last good one kept.

Orbax writes each checkpoint into a temporary folder and renames it when it is complete, so a kill
leaves the previous one. It does not notice a byte that changed on the disk; the digest saved
beside the state does.
"""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import flax.serialization
import jax
import numpy as np
import orbax.checkpoint as ocp

KEPT = 2


class Checkpoints:
    """The checkpoints in one folder.

    Args:
      directory: made when the first checkpoint is saved.
      kept: how many of the newest checkpoints to keep.
      notice: called with a line of text when a checkpoint turns out to be unusable.
    """

    def __init__(self, directory: pathlib.Path, notice: Callable[[str], None] = print):
        self._directory = pathlib.Path(directory).absolute()
        self._notice = notice

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, oldest first."""
        with self._manager() as manager:
            return sorted(manager.all_steps())

    def save(self, step: int, state: Any, **extra: Any) -> None:
        """Saves the state and values for JSON; the two newest checkpoints are kept."""
        tree = jax.device_get(flax.serialization.to_state_dict(state))
        with self._manager() as manager:
            manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(tree),
                    extra=ocp.args.JsonSave({"digest": digest(tree), **extra}),
                ),
            )

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest checkpoint that can be read, or None where there is none.

        A checkpoint that cannot be read, or whose digest is wrong, is set aside in a folder
        "corrupt" and the one before it is taken; `notice` says so.

        Args:
          like: a state of the same structure.

        Returns:
          (state, extra values of `save`).
        """
        template = flax.serialization.to_state_dict(like)
        for step in reversed(self.steps()):
            try:
                with self._manager() as manager:
                    saved = manager.restore(
                        step,
                        args=ocp.args.Composite(
                            state=ocp.args.StandardRestore(template), extra=ocp.args.JsonRestore()
                        ),
                    )
                tree, extra = jax.device_get(saved.state), dict(saved.extra)
                if digest(tree) != extra.pop("digest"):
                    raise ValueError("its contents are not those that were saved")
            except Exception as error:  # Whatever a damaged file makes the readers raise.
                reason = str(error).strip().splitlines()[0][:200] if str(error) else repr(error)
                aside = self._set_aside(step)
                self._notice(
                    f"checkpoint {self._directory / str(step)} is corrupt ({reason}); "
                    f"moved to {aside}, going back to the one before it"
                )
                continue
            return flax.serialization.from_state_dict(like, tree), extra
        return None

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

    def discard_after(self, step: int) -> None:
        """Removes the checkpoints of later steps."""
        with self._manager() as manager:
            for later in manager.all_steps():
                if later > step:
                    manager.delete(later)

    def _manager(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
            item_names=("state", "extra"),
        )


def read_latest(directory: pathlib.Path) -> dict[str, Any]:
    """The state in the newest checkpoint of a folder, as nested dicts of arrays.

    Changes nothing there, so a run that is still going may be looked at.

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged.
    """
    # Orbax writes elsewhere and renames, so a folder that is named by a number is complete.
    steps = [path for path in directory.glob("*") if path.name.isdecimal()]
    if not steps:
        raise FileNotFoundError(f"no checkpoint in {directory}")
    newest = max(steps, key=lambda path: int(path.name)).absolute()
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            extra = reader.restore(newest / "extra")
        with ocp.StandardCheckpointer() as reader:
            tree = jax.device_get(reader.restore(newest / "state"))
    except Exception as error:  # Whatever a damaged file makes the readers raise.
        raise ValueError(f"the checkpoint {newest} is damaged") from error
    if digest(tree) != extra["digest"]:
        raise ValueError(f"the checkpoint {newest} is damaged: its digest is wrong")
    return tree


def digest(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
