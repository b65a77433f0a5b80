"""Runs a piece of the preparation in a process of its own, with one fault put in.

    python faults.py FAULT ACTION [ARGUMENT ...]

FAULT is "none" or a function of `FAULTS`, ACTION one of `ACTIONS`; both are documented below. The
environment variable TINY_PACKAGES names a pickle that replaces the packages of the registries.
"""

import json
import multiprocessing
import os
import pathlib
import pickle
import resource
import signal
import sys
import tempfile

from experiments.data.prepare import (
    images,
    label_images,
    registry,
    staging,
    tfds_write,
    ucf101,
    video,
)

SMALL = 50_000  # bytes, see `small_files`


def die(*_, **__):
    """Ends this process as a power cut would: no handler, no clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies_at_call(number, function):
    """The function, which ends the process when it is called for the `number`-th time."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            die()
        return function(*args, **kwargs)

    return counted


def kill_at_download():
    """Killed when the package has been fetched and is not unpacked yet."""
    registry.unpack = die


def kill_at_storing():
    """Killed at the 100th image that is stored."""
    shown = tfds_write.progress

    def progress(items, **rest):
        for index, item in enumerate(shown(items, **rest)):
            yield item if index < 100 else die()

    tfds_write.progress = progress


def interrupt_at_storing():
    """Ctrl-C while the images are stored."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    tfds_write.progress = interrupted


def kill_at_checksums():
    """Killed when all is stored and nothing is checksummed yet."""
    staging.store.sha256 = die


def kill_at_rename():
    """Killed when all is checksummed and not at its place yet."""
    staging.os.replace = dies_at_call(2, os.replace)  # the first one is of checksums.json


def kill_at_counting():
    """Killed at the 12th video whose frames are counted."""
    video.VideoFile.probe = dies_at_call(12, video.VideoFile.probe)


def kill_at_decoding():
    """Killed at the 12th video whose clips are made."""
    video.clips = dies_at_call(12, video.clips)


def kill_at_publishing():
    """Killed when all clips are made and not at their place yet."""
    ucf101.publish = die


def kill_with_workers():
    """Killed when three videos are decoded; prints the worker processes that are alive then."""
    in_order = ucf101.in_order

    def killed(run, function, jobs, workers):
        for index, result in enumerate(in_order(run, function, jobs, workers)):
            if index == 3:
                print(*[child.pid for child in multiprocessing.active_children()], flush=True)
                die()
            yield result

    ucf101.in_order = killed


def kill_at_checking_pictures():
    """Killed at the 6th picture that is checked."""
    label_images.read = dies_at_call(6, label_images.read)


def kill_at_storing_pictures():
    """Killed at the 6th picture that is stored, after 12 that were checked."""
    label_images.read = dies_at_call(18, label_images.read)


def kill_at_publishing_pictures():
    """Killed when all pictures are stored and not at their place yet."""
    label_images.publish = die


def small_files():
    """No file may grow beyond `SMALL` bytes (EFBIG), as under `ulimit -f`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))


FAULTS = {
    function.__name__: function
    for function in (
        *(kill_at_download, kill_at_storing, kill_at_checksums, kill_at_rename),
        *(kill_at_counting, kill_at_decoding, kill_at_publishing, kill_with_workers),
        *(kill_at_checking_pictures, kill_at_storing_pictures, kill_at_publishing_pictures),
        *(interrupt_at_storing, small_files),
    )
}


def prepare_images(name, data_dir, archive):
    """Prepares a dataset of images from a package file."""
    images.prepare(name, data_dir, archive)


def prepare_ucf101(source, data_dir, workers):
    """Prepares two classes of UCF-101."""
    ucf101.prepare(source, data_dir, 2, workers=int(workers))


def prepare_voc(source, data_dir):
    """Prepares Pascal VOC on squares of 64 pixels."""
    label_images.prepare("voc", source, data_dir, workers=1, size=64)


def hold(data_dir, name):
    """Holds the staging folder of a dataset until a line comes in."""
    with staging.staging(data_dir, name):
        print("held", flush=True)
        input()


def command(*arguments):
    """Runs the command prepare_data with these arguments."""
    from experiments import prepare_data
    from experiments.cli import main as cli_main

    sys.argv = ["prepare_data", *arguments]
    cli_main.run(prepare_data.main, prepare_data.define, accepts=prepare_data.NAMES)


def commands(path):
    """Runs the command with each of the lists of arguments in a JSON file; prints what came out.

    Each runs in a fork of this process, which has imported everything: that is fast.
    """
    from experiments import prepare_data  # noqa: F401

    results = []
    for arguments in json.loads(pathlib.Path(path).read_text()):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = os.fork()
            if process == 0:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                command(*arguments)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        results.append([code, *texts])
    print(json.dumps(results))


ACTIONS = {
    function.__name__: function
    for function in (prepare_images, prepare_ucf101, prepare_voc, hold, command, commands)
}

if __name__ == "__main__":
    fault, action, *arguments = sys.argv[1:]
    if "TINY_PACKAGES" in os.environ:
        described = pathlib.Path(os.environ["TINY_PACKAGES"])
        registry.PACKAGES = pickle.loads(described.read_bytes())
    if fault != "none":
        FAULTS[fault]()
    ACTIONS[action](*arguments)
