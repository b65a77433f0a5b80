"""Runs a training binary for a test, with a hook that kills it at a chosen moment.

    python driver.py BINARY KILL [--flag=value ...]

KILL is "no", "step:N" (SIGKILL when N steps of this process are done), "save:N" (SIGKILL in the
middle of writing the N-th checkpoint of this process) or "full:N" (the disk is full from the N-th
file on that is synced to it) or "interrupt:N" (Ctrl-C when N steps of this process are done).
"""

import errno
import importlib
import os
import signal
import sys

from experiments.cli import common_flags
from experiments.cli import main as cli_main
from experiments.training import progress


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    raise KeyboardInterrupt


def kill_at_step(number, end=die):
    update = progress.Progress.update

    def counted(self, step):
        update(self, step)
        counted.left -= 1
        if counted.left == 0:
            end()

    counted.left = number
    progress.Progress.update = counted


def kill_in_save(number):
    # Orbax writes into a temporary folder and renames it last of all; that rename never comes.
    rename = os.rename
    replace = os.replace
    seen = []

    def guarded(original):
        def move(source, target, *args, **kwargs):
            if "orbax-checkpoint-tmp" in str(source) and str(target).rsplit("/", 1)[1].isdigit():
                seen.append(target)
                if len(seen) == number:
                    die()
            return original(source, target, *args, **kwargs)

        return move

    os.rename, os.replace = guarded(rename), guarded(replace)


def fill_disk_at(number):
    fsync = os.fsync
    seen = []

    def full(descriptor):
        seen.append(descriptor)
        if len(seen) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


if __name__ == "__main__":
    binary, kill = sys.argv[1:3]
    del sys.argv[1:3]
    module = importlib.import_module(f"experiments.{binary}")
    what, _, number = kill.partition(":")
    hooks = {
        "step": kill_at_step,
        "save": kill_in_save,
        "full": fill_disk_at,
        "interrupt": lambda count: kill_at_step(count, interrupt),
    }
    if what != "no":
        hooks[what](int(number))
    common_flags.define(module.NAME)
    cli_main.run(module.main)
