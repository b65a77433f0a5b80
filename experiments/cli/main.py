"""Runs a command: parses its flags, prints its help, and turns known errors into one line.

A command is two functions: `define(values)` defines its flags, and `main(values, ...)` does the
work. Each command has flags of its own, in its own `FlagValues`, so several commands (and their
tests) live in one process.

    if __name__ == "__main__":
        command.run(main, define)
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from experiments.cli import usage
from experiments.system import interrupt
from experiments.system.errors import (
    ConfigError,
    NonFiniteError,
    SaveError,
    UserError,
    is_disk_full,
)
from experiments.system.output import accept_any_text

Define = Callable[[flags.FlagValues], None]
_HELP = ("--help", "-help", "--helpfull", "-helpfull", "-h", "-?", "--helpshort", "-helpshort")


class FlagError(UserError):
    """A command line that cannot be parsed."""


def run(
    main: Callable[..., Any],
    define: Define,
    *,
    accepts: Sequence[str] = (),
    several: str | None = None,
) -> None:
    """Runs a command to its end; a known error becomes one line and an exit code.

    Exit codes: 0 success, 1 a trial or the machine failed, 2 a flag or an input is not usable, 130
    interrupted by Ctrl-C.

    Args:
      main: called with the parsed flags, and with the name where the command takes one.
      define: defines the flags.
      accepts: the names that the command takes in front of its flags; none by default.
      several: what the names are that the command takes any number of (one or more), such as
        "workdir"; then `main` is called with each of them.
    """
    accept_any_text()
    values = flags.FlagValues()
    define(values)

    def parse(argv: list[str]) -> list[str]:
        if any(argument in _HELP for argument in argv[1:]):
            print(usage.text(values))
            sys.exit(0)
        return _absl_flags(argv)

    def guarded(argv: list[str]) -> None:
        if not flags.FLAGS["verbosity"].present:  # Orbax logs every file; --verbosity=0 shows it.
            logging.set_verbosity(logging.FATAL)
        interrupt.install()
        sys.unraisablehook = _without_closed_loops(sys.unraisablehook)
        try:
            names = parse_flags(values, argv, accepts, several)
            main(values, *names)
            sys.stdout.flush()
        except Exception as error:
            _explain(error, values)
        except KeyboardInterrupt:
            fail(f"interrupted{_how_to_go_on(values)}", 130)

    app.run(guarded, flags_parser=parse)


def call(
    main: Callable[..., Any],
    define: Define,
    *arguments: str,
    accepts: Sequence[str] = (),
    several: str | None = None,
) -> Any:
    """Runs a command inside this process, for tests and notebooks: errors are raised.

    Args:
      main: see `run`.
      define: see `run`.
      *arguments: as on the command line.
      accepts: see `run`.
      several: see `run`.
    """
    values = flags.FlagValues()
    define(values)
    names = parse_flags(values, ["command", *arguments], accepts, several)
    return main(values, *names)


def parse_flags(
    values: flags.FlagValues,
    argv: Sequence[str],
    accepts: Sequence[str] = (),
    several: str | None = None,
) -> list[str]:
    """Parses a command line into `values` and returns the names among the flags; see `run`.

    Raises:
      FlagError: naming the flag, what came and what is accepted.
      ConfigError: the value of a text flag is empty or begins with the home of an unknown user.
    """
    try:
        rest = values(list(argv))[1:]
    except flags.UnrecognizedFlagError as error:
        raise FlagError(usage.unknown(values, error.flagname)) from error
    except flags.Error as error:
        raise FlagError(usage.illegal_value(values, str(error))) from error
    for name in values:
        if values[name].present:  # A default may be of no use here, and not needed either.
            _check_text(name, values[name].value)
    if several:
        if not rest:
            raise FlagError(f"{several}: got none; accepted: one or more, as in the first line")
        return rest
    if not accepts:
        if rest:
            raise FlagError(f"unexpected argument {rest[0]!r}; accepted: flags --name=value")
        return []
    if len(rest) != 1 or rest[0] not in accepts:
        got = " ".join(rest) or "none"
        raise FlagError(f"name: got {got}; accepted: one of {', '.join(accepts)}")
    return rest


def out_folder(values: flags.FlagValues, name: str = "out") -> pathlib.Path:
    """The folder that a flag names, made and known to be writable before any work is done.

    Raises:
      ConfigError: it cannot be made or written to; nothing is left behind.
    """
    got = values[name].value
    try:
        folder = pathlib.Path(got).expanduser()
        _make_writable(folder, prefix=".")
    except OSError as error:
        accepted = f"a folder that can be written to ({error.strerror or error})"
        raise ConfigError(name, got, accepted) from error
    return folder


def out_file(values: flags.FlagValues, name: str = "out") -> pathlib.Path | None:
    """The file that a flag names, or None; its folder is made before any work is done.

    Raises:
      ConfigError: the folder cannot be made or written to, or the name belongs to something that is
        not a file; nothing is left behind.
    """
    got = values[name].value
    if got is None:
        return None
    try:
        path = pathlib.Path(got).expanduser()
        if path.exists() and not path.is_file():
            raise OSError(0, "it exists and is not a file")
        _make_writable(path.parent, prefix=f".{path.name}.")
    except OSError as error:
        accepted = f"a file that can be written ({error.strerror or error})"
        raise ConfigError(name, got, accepted) from error
    return path


def fail(message: str, code: int) -> NoReturn:
    """Prints `error: message` and ends the process at once.

    Libraries' threads have nothing more to write, and may be stuck on a full disk.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"error: {message}\n")
        sys.stderr.flush()
    os._exit(code)


def _make_writable(folder: pathlib.Path, prefix: str) -> None:
    """Makes a folder and writes a file to it that is gone afterwards.

    Only a write tells: root may write everywhere by the permissions, also in /proc.

    Args:
      folder: it and its parents are made; those made are removed again if this fails.
      prefix: of the file's name, as `system.files.write_text` has it.

    Raises:
      OSError: the folder cannot be made or written to.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=prefix):
            pass
    except OSError:
        for path in missing:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _check_text(name: str, value: Any) -> None:
    """Refuses what an unset shell variable leaves (--out=) and the home folder of no user.

    Raises:
      ConfigError: naming the flag.
    """
    if not isinstance(value, str):
        return
    if not value.strip():
        raise ConfigError(name, "an empty name", "a value, or the flag left out")
    try:
        pathlib.Path(value).expanduser()
    except RuntimeError as error:
        raise ConfigError(name, value, "the home folder of a user of this machine") from error


def _without_closed_loops(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    """The `sys.unraisablehook`, silent for what Orbax's threads raise after a failed save.

    The save itself has raised by then, with the reason; its threads add dozens of tracebacks.
    """

    def filtered(unraisable):
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not (closed and unraisable.exc_type is RuntimeError):
            hook(unraisable)

    return filtered


def _absl_flags(argv: list[str]) -> list[str]:
    """Parses absl's own flags (such as --verbosity) and leaves the command's."""
    own = [x for x in argv[1:] if x.lstrip("-").partition("=")[0] in ("verbosity", "v")]
    try:
        flags.FLAGS([argv[0], *own])
    except flags.Error:
        got = own[0].partition("=")[2] or "no value"
        fail(f"--verbosity: got {got}; accepted: an integer, as --verbosity=0", 2)
    return [argv[0], *(x for x in argv[1:] if x not in own)]


def _explain(error: Exception, values: flags.FlagValues) -> NoReturn:
    """Ends the process with one line for an error of a known cause; else raises it again."""
    if isinstance(error, UserError):
        field = error.field if isinstance(error, ConfigError) else str(error).partition(":")[0]
        fail(f"{'--' if field in values else ''}{error}", 2)
    if isinstance(error, NonFiniteError):
        fail(str(error), 1)
    if isinstance(error, SaveError):
        fail(f"{error}; complete ones are kept{_how_to_go_on(values)}", 1)
    if isinstance(error, MemoryError):
        fail(f"not enough memory: {error}; a smaller dataset or batch needs less", 1)
    if isinstance(error, BrokenPipeError):
        fail("the program that reads the output has ended" + _how_to_go_on(values), 1)
    if is_disk_full(error):
        fail(
            "no space left on a disk that is written to, or a file above its size limit "
            f"({_first_line(error)}); complete files are kept{_how_to_go_on(values)}",
            1,
        )
    if "jax" in sys.modules:
        from experiments.training import processes

        if processes.was_lost(error):
            fail(f"another of the processes has ended{_how_to_go_on(values)}", 1)
    raise error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _how_to_go_on(values: flags.FlagValues) -> str:
    if "workdir" in values and "resume" in values and values["workdir"].value:
        workdir = pathlib.Path(values["workdir"].value).absolute()
        return f"; go on with --workdir={workdir} --resume and the same flags"
    return ""
