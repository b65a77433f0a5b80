"""Runs a command for a test in a process of its own, with a fault at a chosen moment.

    python faults.py MODULE FAULT [--flag=value ...]

MODULE is a training command, such as `experiments.cifar_resnet56`. FAULT is one of

    no             nothing goes wrong
    kill_step:N    SIGKILL when this process has done N steps
    kill_save:N    SIGKILL in the middle of writing the N-th checkpoint of a trial
    full:N         the disk is full from the N-th file on that is synced to it
    large:N        files may have N bytes at most (as after `ulimit -f`)
    interrupt:N    Ctrl-C when this process has done N steps
    swallowed:N    the same, but a library swallows the KeyboardInterrupt
"""

import errno
import importlib
import os
import signal
import sys

from experiments.system.progress import Progress


def at_step(number, event):
    """Calls `event` when `Progress` is told of the N-th step."""
    update = Progress.update
    left = [number]

    def counted(self, done):
        update(self, done)
        left[0] -= 1
        if left[0] == 0:
            event()

    Progress.update = counted


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_swallowed():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        pass


def kill_in_save(number):
    """Orbax writes into a temporary folder and renames it last of all; that rename never comes."""
    seen = []

    def guarded(original):
        def move(source, target, *args, **kwargs):
            of_trial = "orbax-checkpoint-tmp" in str(source) and "/checkpoints/" in str(target)
            if of_trial and str(target).rsplit("/", 1)[1].isdigit():
                seen.append(target)
                if len(seen) == number:
                    kill()
            return original(source, target, *args, **kwargs)

        return move

    os.rename, os.replace = guarded(os.rename), guarded(os.replace)


def fill_disk_at(number):
    fsync = os.fsync
    seen = []

    def full(descriptor):
        seen.append(descriptor)
        if len(seen) >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    os.fsync = full


def limit_files_to(size):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


FAULTS = {
    "no": lambda number: None,
    "kill_step": lambda number: at_step(number, kill),
    "kill_save": kill_in_save,
    "full": fill_disk_at,
    "large": limit_files_to,
    "interrupt": lambda number: at_step(number, interrupt),
    "swallowed": lambda number: at_step(number, interrupt_swallowed),
}


if __name__ == "__main__":
    name, fault = sys.argv[1:3]
    del sys.argv[1:3]
    kind, _, count = fault.partition(":")
    if kind in ("full", "large"):  # JAX would speak of its cache, which cannot be written either.
        os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
    experiment = importlib.import_module(name).EXPERIMENT
    FAULTS[kind](int(count or 0))
    experiment.run()
