"""What every command does with its command line: values that are text, and where results go."""

import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import pytest
from absl import flags

from experiments import cifar_resnet56
from experiments.cli import main as command
from experiments.cli import usage
from experiments.system.errors import ConfigError, UserError

ROOT = pathlib.Path(__file__).resolve().parents[3]


def define(values):
    flags.DEFINE_string("out", None, "Where to.", flag_values=values)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("text")
    return tmp_path


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("take", [command.out_folder, command.out_file])
@pytest.mark.parametrize(
    "value", ["file/x", "file/x/y", "/proc/x", "/proc/x/y", "new/" + "x" * 300, "new/" * 2000 + "x"]
)
def test_a_place_that_cannot_be_written_is_told_and_nothing_is_left(here, take, value):
    with pytest.raises(ConfigError, match=r"^out: got .*; accepted: a (folder|file) that can be "):
        command.call(take, define, f"--out={value}")
    assert left(here) == ["file"]


@pytest.mark.parametrize("value", ["/proc", "file"])
def test_a_folder_that_is_there_is_tried(here, value):
    with pytest.raises(ConfigError, match="^out: got .*; accepted: a folder that can be written"):
        command.call(command.out_folder, define, f"--out={value}")


@pytest.mark.parametrize("value", [".", "/dev/null"])
def test_an_output_file_does_not_take_the_place_of_something_else(here, value):
    with pytest.raises(ConfigError, match="it exists and is not a file"):
        command.call(command.out_file, define, f"--out={value}")


def test_a_file_whose_temporary_name_is_too_long_is_told_before_the_work(here):
    # Files are written under a longer name first: 250 characters fit, the longer name does not.
    with pytest.raises(ConfigError, match="^out: .*File name too long"):
        command.call(command.out_file, define, f"--out={'x' * 250}")
    assert left(here) == ["file"]


def test_places_that_can_be_written_are_made(here):
    folder = command.call(command.out_folder, define, "--out=a/b")
    assert folder.is_dir() and left(folder) == []
    assert command.call(command.out_file, define, "--out=c/d.json") == pathlib.Path("c/d.json")
    assert left(here) == ["a", "a/b", "c", "file"]
    assert command.call(command.out_file, define) is None
    assert command.call(command.out_file, define, "--out=file").read_text() == "text"


@pytest.mark.parametrize("value", ["", "  ", "~nouser", "~nouser/x"])
def test_text_that_a_shell_left_is_refused(here, value):
    with pytest.raises(UserError, match="^out: got "):
        command.call(lambda values: None, define, f"--out={value}")


def test_a_default_that_is_not_needed_is_not_checked():
    def with_home(values):
        flags.DEFINE_string("data_dir", "~nouser/data", "Where from.", flag_values=values)

    assert command.call(lambda values: values.data_dir, with_home) == "~nouser/data"
    with pytest.raises(UserError, match="^data_dir: got ~nouser/data; accepted: "):
        command.call(lambda values: None, with_home, "--data_dir=~nouser/data")


def test_a_command_ends_with_one_line_and_code_2(tmp_path):
    module = "experiments.benchmarks.convnet3d"
    done = subprocess.run(
        [sys.executable, "-m", module, "--sizes=foo", f"--out={tmp_path}/x/y.json"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "error: --sizes: got 'foo'; accepted: 16x112x112, 16x32x32\n"
    assert not list(tmp_path.iterdir())


def test_help_says_what_a_flag_is_and_nothing_of_the_parser():
    values = flags.FlagValues()
    cifar_resnet56.EXPERIMENT.define(values)
    text = usage.text(values)
    assert "--sweep  NAME:VALUE" in text and "may be given several times" in text
    assert "repeat this option" not in text and ";" not in text.partition("--sweep")[2][:40]


@pytest.mark.parametrize(("flag", "got"), [("--verbosity=abc", "abc"), ("--verbosity", "no value")])
def test_a_wrong_verbosity_is_one_line(flag, got):
    ran = subprocess.run(
        [sys.executable, "-m", "experiments.analysis.metric_figures", flag],
        capture_output=True, text=True, cwd=ROOT,
    )  # fmt: skip
    assert ran.returncode == 2
    assert ran.stderr == f"error: --verbosity: got {got}; accepted: an integer, as --verbosity=0\n"


def test_a_flagfile_that_cannot_be_read_is_told_by_name():
    message = r"--flagfile: got '/none/x'; accepted: .* \(No such file or directory\)$"
    with pytest.raises(UserError, match=message):
        command.call(lambda values: None, lambda values: None, "--flagfile=/none/x")


# Help, output of every kind and an error, in letters that no console below has, and a file name
# that is no text at all.
SPEAKING = r"""
'''\u03c3 \u2192 help.'''
import sys
from absl import flags, logging
from experiments.cli import main as command
from experiments.system.errors import UserError
from experiments.system.output import say
TEXT = "\u03c3 \u2192 \udcff"
def define(values):
    flags.DEFINE_string("out", "x", "To \u2192.", flag_values=values)
def main(values):
    print(TEXT, "printed")
    say(f"{TEXT} said")
    say(f"{TEXT} warned", sys.stderr)
    logging.set_verbosity(logging.INFO)
    logging.error("%s logged", TEXT)
    raise UserError(f"out: {TEXT} wrong")
command.run(main, define)
"""
CONSOLES = [
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "cp1252"},
    {"PYTHONIOENCODING": "latin-1:strict"},
    {"PYTHONIOENCODING": "utf-8:strict"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
]


@pytest.mark.parametrize("console", CONSOLES, ids=str)
def test_every_line_gets_out_on_every_console(console):
    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", SPEAKING, *arguments],
            cwd=ROOT, capture_output=True, env=os.environ | console,
        )  # fmt: skip

    ran = run()
    assert ran.returncode == 2
    assert b"Traceback" not in ran.stderr and b"Error ---" not in ran.stderr
    assert [line.split()[-1] for line in ran.stdout.splitlines()] == [b"printed", b"said"]
    said = [line.split()[-1] for line in ran.stderr.splitlines()]
    assert said == [b"warned", b"logged", b"wrong"]
    ran = run("--help")
    assert ran.returncode == 0 and ran.stderr == b"" and b"--out" in ran.stdout


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_command_without_a_console_does_its_work(closed):
    shell = f'exec "{sys.executable}" -c "$0" {closed}'
    ran = subprocess.run(["sh", "-c", shell, SPEAKING], cwd=ROOT, capture_output=True)
    assert ran.returncode == 2
    assert (ran.stdout == b"") == ("1>" in closed) and (ran.stderr == b"") == ("2>" in closed)


def test_unraisable_errors_of_closed_loops_alone_are_left_out():
    told = []
    hook = command._without_closed_loops(told.append)
    for error in (RuntimeError("Event loop is closed"), RuntimeError("other"), OSError("x")):
        hook(SimpleNamespace(exc_type=type(error), exc_value=error))
    assert [str(unraisable.exc_value) for unraisable in told] == ["other", "x"]
