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

    def discard(self) -> None:
        """Removes every checkpoint of this folder."""
        with self._manager() as manager:
            for step in manager.all_steps():
                manager.delete(step)

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
        return ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
            ),
            item_names=("state", "extra"),
        )


def read_latest(directory: pathlib.Path) -> dict[str, Any]:
    """The state in the newest checkpoint of a folder, as nested dicts of arrays.

    Raises:
      FileNotFoundError: there is none.
    """
    steps = Checkpoints(directory).steps() if directory.is_dir() else []
    if not steps:
        raise FileNotFoundError(f"no checkpoint in {directory}")
    with ocp.StandardCheckpointer() as checkpointer:
        return jax.device_get(checkpointer.restore(directory.absolute() / str(steps[-1]) / "state"))


def digest(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.ascontiguousarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
