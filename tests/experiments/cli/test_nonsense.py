"""Every flag of every command refuses nonsense: one error that names it, no work, nothing left.

The flags of each command are found, and each is given the nonsense of its type. ACCEPTED has the
values of those tables that a flag rightly takes, MORE has further nonsense, and TEXTS says what
nonsense is for a flag of text. A new command needs an entry in COMMANDS.
"""

from __future__ import annotations

import functools
import importlib
import pathlib

import numpy as np
import pytest
from absl import flags

from experiments import data
from experiments.cli import main as command
from experiments.system.errors import UserError
from tests.experiments.analysis import video_study

# Command -> its other flags: they make it quick, or its flags usable.
COMMANDS = {
    "cifar_resnet56": ("--dataset=digits", "--depth=8"),
    "cifar_vgg16": ("--dataset=digits",),
    "cityscapes_spade": ("--dataset=digit_scenes", "--size=32", "--train_examples=32"),
    "linear_classifier": ("--dataset=digits",),
    "mnist_smoothness": ("--dataset=digits",),
    "ucf101_convnet3d": ("--dataset=moving_digits", "--size=16", "--train_examples=32"),
    "voc_unet": ("--dataset=digit_scenes", "--batch_size=4"),
    "ct_reconstruction": (),
    "prepare_data": ("--source=VIDEOS",),
    "report": (),
    "study": (),
    "analysis.correlation": ("--kernels=KERNELS", "--out=out"),
    "analysis.filters": ("--workdir=STUDY",),
    "analysis.metric_figures": (),
    "analysis.optflow_figures": ("--figures=2",),
    "benchmarks.channel_grad": ("--quick",),
    "benchmarks.convnet3d": (),
    "benchmarks.gpu_compile": (),
    "benchmarks.gpu_suite": (),
    "benchmarks.optflow": ("--quick",),
    "benchmarks.reading": ("--megabytes=1", "--size=8", "--steps=1", "--rounds=1"),
}
# The name in front of the flags, by command and flag ("" for the other flags).
NAMES = {
    ("prepare_data", ""): "ucf101",
    ("prepare_data", "archive"): "mnist",
    ("prepare_data", "size"): "voc",
    ("report", ""): "STUDY",
    ("study", ""): "optflow_fresh_seeds",
}
# Flags that do not go together with those of COMMANDS: they are given alone.
ALONE = {("prepare_data", "archive"), ("analysis.correlation", "workdir")}

INTEGERS = ("x", "1.5", "²", "nan", "-1", "", "-100000000000000000000")
NUMBERS = ("x", "nan", "inf", "-inf", "-1", "", "1e999", "²")
BOOLS = ("maybe", "2", "nan", "")
LISTS = ("", "nonsense", ",", "²", "-1", "nan")
ENUMS = ("nonsense", "")
WRITTEN = ("", " ", "~nouser/x", "/proc/nonsense/x", "FILE/x", "x" * 300)
READ = ("", "~nouser/x")
# By command ("" for the others) and flag. A setting that is a choice needs no entry.
TEXTS = {
    ("", "preset"): ENUMS,
    ("", "dataset"): ENUMS,
    ("", "data_dir"): READ,
    ("", "workdir"): WRITTEN,
    ("", "out"): WRITTEN,
    ("", "trial_range"): ("x", "1", "1:1", "2:1", "0:5", "-1:1", "²:3", ":", ""),
    ("cityscapes_spade", "inception"): (*READ, "/proc", "FILE", "nowhere"),
    ("cityscapes_spade", "unet"): (*READ, "/proc", "FILE", "nowhere"),
    ("cityscapes_spade", "vgg"): (*READ, "/proc", "FILE", "nowhere"),
    ("prepare_data", "source"): (*READ, "/proc/nonsense", "FILE"),
    ("prepare_data", "archive"): (*READ, "/proc/nonsense"),
    ("prepare_data", "lists"): READ,
    ("voc_unet", "encoder_weights"): (*READ, "/proc/nonsense", "FILE", "nowhere.npz"),
    ("analysis.filters", "workdir"): (*READ, "/proc", "FILE", "nowhere"),
    ("analysis.correlation", "workdir"): READ,
    ("analysis.correlation", "kernels"): (*READ, "/proc", "FILE"),
    ("analysis.correlation", "run"): ("",),  # ignored without --workdir
}
ACCEPTED = {
    ("benchmarks.channel_grad", "batch_sizes"): ("",),  # times no step
    ("analysis.filters", "clips"): ("",),  # draws no clip
    ("analysis.correlation", "seed"): ("-1", "-100000000000000000000"),  # ignored without --workdir
}
MORE = {
    ("", "sweep"): ("", "x", "lam", "lam:", "lam:x", "lam:nan", "learning_rate:-1", "nonsense:1"),
    ("", "random_search"): ("0", "100000000"),
    ("", "trials"): ("0", "100000000", "100000000000000000000"),
    ("", "seed"): ("2147483648", "100000000000000000000"),
    ("", "epochs"): ("0", "1e20"),
    ("", "batch_size"): ("0", "5000", "100000000000000000000"),
    ("", "evaluation_examples"): ("0", "1"),
    ("", "train_examples"): ("0", "100000000000000000000"),
    ("", "validation"): ("0", "1", "2"),
    ("", "size"): ("0", "2", "100000000"),
    ("", "cutout"): ("33", "100000000000000000000"),
    ("", "depth"): ("0", "9", "60000002", "100000000000000000002"),
    ("", "repeats"): ("0", "100000000000"),
    ("", "steps"): ("0", "100000000000"),
    ("", "repetitions"): ("0", "100000000000"),
    ("", "seconds"): ("0", "1e30"),
    ("", "budget"): ("0", "1e30"),
    ("", "budget_seconds"): ("0", "1e30"),
    ("", "parts"): ("agreement,agreement",),
    ("", "scales"): ("0", "1,nan", "inf", "1e30", "1e-30", "1,"),
    ("", "sets"): ("16 of 7x7x7,x", "16 of 7x7x7,16 of 7x7x7"),
    ("", "figures"): ("6", "1,1"),
    ("", "batch_sizes"): ("0", "8,", "8,²", "100000000000000000000"),
    ("", "sizes"): ("foo", "16x32x32,foo"),
    ("", "clips"): ("12", "0,12", "100000000000000000000"),
    ("", "max_distance"): ("0",),
    ("", "max_iterations"): ("0", "100000000000000000000"),
    ("", "tolerance"): ("0", "2"),
    ("ct_reconstruction", "strength"): ("0", "1e30"),
    ("", "dose"): ("0", "1e30"),
    ("", "views"): ("0", "20,", "20,20", "20,²", "100000000000000000000"),
    ("", "images"): ("camera,camera",),
    ("", "samples"): ("0",),
    ("analysis.filters", "seed"): ("5",),
    ("analysis.correlation", "seed"): (),  # ignored without --workdir
}


def load_command(name):
    """(module, define, main) of a command."""
    module = importlib.import_module(f"experiments.{name}")
    owner = module if hasattr(module, "define") else getattr(module, "EXPERIMENT", module)
    return module, owner.define, owner.main


@functools.cache
def flags_of(name):
    """The flags of a command, by name."""
    values = flags.FlagValues()
    load_command(name)[1](values)
    return {flag: values[flag] for flag in values}


def nonsense(name, flag):
    """Values that this flag of this command must refuse."""

    def entry(table, default=()):
        return table.get((name, flag), table.get(("", flag), default))

    by_type = {
        "int": INTEGERS,
        "float": NUMBERS,
        "bool": BOOLS,
        "comma separated list of strings": LISTS,
        "multi string": (),
        "string": entry(TEXTS, ENUMS),
    }[flags_of(name)[flag].flag_type()]
    return [x for x in by_type if x not in entry(ACCEPTED)] + list(entry(MORE))


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def write_lists(folder):
    """The official lists of UCF-101, of two classes, without their videos."""
    classes = ("Archery", "Bowling")
    (folder / "UCF-101").mkdir(parents=True)
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {x}\n" for i, x in enumerate(classes, 1)))
    for name, group in (("trainlist01.txt", 8), ("testlist01.txt", 1)):
        videos = (f"{x}/v_{x}_g{group:02}_c01.avi {i}" for i, x in enumerate(classes, 1))
        (lists / name).write_text("".join(f"{video}\n" for video in videos))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return video_study.write(tmp_path_factory.mktemp("study") / "w")


@pytest.fixture
def no_work(monkeypatch):
    """Training, measuring, drawing and downloading fail the test. Data is made once."""

    def worked(*_, **__):
        raise AssertionError("work began")

    for target in (
        "experiments.training.study.attempt",
        "experiments.study.train",
        "experiments.ct_reconstruction.scan",
        "experiments.benchmarks.channel_grad.in_turns",
        "experiments.benchmarks.gpu_suite.run",
        "experiments.benchmarks.convnet3d.in_turns",
        "experiments.benchmarks.optflow.bench_set",
        "experiments.analysis.metric_figures.first_gradient",
        "experiments.analysis.optflow_figures.two_filters",
        "experiments.figures.filters.draw_filters",
        "urllib.request.urlopen",
    ):
        monkeypatch.setattr(target, worked)
    monkeypatch.setattr(data, "load", _cached_load)


_cached_load = functools.cache(data.load)


@pytest.mark.parametrize(
    ("name", "flag"), [(name, flag) for name in COMMANDS for flag in flags_of(name)]
)
def test_nonsense_is_refused_by_name(name, flag, study, no_work, tmp_path, monkeypatch):
    module, define, main = load_command(name)
    if name == "analysis.filters":
        monkeypatch.setattr(data, "load", video_study.load)
    places = {
        "STUDY": study,
        "FILE": tmp_path / "file",
        "KERNELS": tmp_path / "kernels.npz",
        "VIDEOS": tmp_path / "videos",
    }
    places["FILE"].write_text("a file")
    np.savez(places["KERNELS"], kernel=np.ones((3, 3, 2, 4), np.float32))
    write_lists(places["VIDEOS"])
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    left = files(study), files(tmp_path)
    first = NAMES.get((name, flag), NAMES.get((name, "")))
    values = nonsense(name, flag)
    assert values
    for value in values:
        others = () if (name, flag) in ALONE else COMMANDS[name]
        given = [*([first] if first else []), *others, f"--{flag}={value}"]
        for word, place in places.items():
            given = [argument.replace(word, str(place)) for argument in given]
        with pytest.raises(UserError) as caught:
            command.call(
                main, define, *given, accepts=getattr(module, "NAMES", ()),
                several=getattr(module, "SEVERAL", None),
            )  # fmt: skip
        told = str(caught.value)
        assert told.removeprefix("--").startswith(f"{flag}:"), (value, told)
        assert "\n" not in told and "accepted" in told, (value, told)
        assert (files(study), files(tmp_path)) == left, value


def test_every_command_is_in_the_table():
    root = pathlib.Path(data.__file__).resolve().parents[1]
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for folder in (root, root / "analysis", root / "benchmarks")
        for path in folder.glob("*.py")
        if '__name__ == "__main__"' in path.read_text()
    }
    assert found == COMMANDS.keys()
