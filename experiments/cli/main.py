"""Runs the `main` of a command: parses flags, prints help, and turns known errors into one line."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from experiments.cli import usage
from experiments.data.dataset import DatasetNotPrepared
from experiments.system.errors import ConfigError, NonFiniteError, UserError, is_disk_full

FLAGS = flags.FLAGS
_HELP = ("--help", "-help", "--helpfull", "-helpfull", "-h", "-?", "--helpshort", "-helpshort")


def run(main: Callable[..., Any], *, accepts: Sequence[str] = ()) -> None:
    """Parses the flags and calls `main`; a known error becomes one line and an exit code.

    Exit codes: 0 success, 1 a trial or the machine failed, 2 a flag or an input is not usable, 130
    interrupted by Ctrl-C.

    Args:
      main: called without arguments, or with the name where the command takes one.
      accepts: the names that the command takes in front of its flags; none by default.
    """

    def guarded(argv: list[str]) -> None:
        if not FLAGS["verbosity"].present:  # Orbax logs every file; --verbosity=0 shows it.
            logging.set_verbosity(logging.FATAL)
        try:
            main(*_names(argv[1:], accepts))
            sys.stdout.flush()
        except Exception as error:
            _explain(error)
        except KeyboardInterrupt:
            fail(f"interrupted{_how_to_go_on()}", 130)

    app.run(guarded, flags_parser=_parse)


def fail(message: str, code: int) -> NoReturn:
    """Prints `error: message` and ends the process at once.

    Libraries' threads have nothing more to write, and may be stuck on a full disk.
    """
    for stream, text in ((sys.stdout, ""), (sys.stderr, f"error: {message}\n")):
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            pass  # The reader at the other end of the pipe has gone.
    os._exit(code)


def _parse(argv: list[str]) -> list[str]:
    if any(argument in _HELP for argument in argv[1:]):
        print(usage.text(FLAGS))
        sys.exit(0)
    try:
        return FLAGS(argv)
    except flags.IllegalFlagValueError as error:
        fail(usage.illegal_value(FLAGS, error), 2)
    except flags.Error as error:
        fail(str(error).replace("\n", " "), 2)


def _names(given: list[str], accepts: Sequence[str]) -> list[str]:
    if not accepts:
        if given:
            raise UserError(f"unexpected argument {given[0]!r}; accepted: flags --name=value")
        return []
    if len(given) != 1 or given[0] not in accepts:
        got = " ".join(given) or "none"
        raise UserError(f"dataset: got {got}; accepted: one of {', '.join(accepts)}")
    return given


def _explain(error: Exception) -> NoReturn:
    """Ends the process with one line for an error that has a known cause; else raises it again."""
    if isinstance(error, ConfigError):
        dashes = "--" if error.field in FLAGS else ""
        fail(f"{dashes}{error}", 2)
    if isinstance(error, UserError | DatasetNotPrepared):
        fail(str(error), 2)
    if isinstance(error, NonFiniteError):
        fail(str(error), 1)
    if isinstance(error, MemoryError):
        fail(f"not enough memory: {error}; a smaller dataset or batch needs less", 1)
    if isinstance(error, BrokenPipeError):
        fail("the program that reads the output has ended" + _how_to_go_on(), 1)
    if is_disk_full(error):
        fail(
            f"no space left on a disk that is written to, or a file is too large for its limits "
            f"({_first_line(error)}); complete files are kept{_how_to_go_on()}",
            1,
        )
    raise error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _how_to_go_on() -> str:
    if "workdir" in FLAGS and "resume" in FLAGS and FLAGS.workdir:
        workdir = pathlib.Path(FLAGS.workdir).absolute()
        return f"; go on with --workdir={workdir} --resume and the same flags"
    return ""
