"""The text that --help prints, and what a flag of the wrong type is told."""

from __future__ import annotations

import difflib
import re
import sys
import textwrap

from absl import flags

_WIDTH = 100


def text(values: flags.FlagValues) -> str:
    """What --help prints: the command's docstring, then its flags, group by group."""
    parts = [(sys.modules["__main__"].__doc__ or "").strip()]
    for title, defined in values.flags_by_module_dict().items():
        parts.append("\n".join([f"{title}:", *(_line(flag) for flag in defined)]))
    return "\n\n".join(parts)


def unknown(values: flags.FlagValues, name: str) -> str:
    """One line for a flag that is not there, with the most similar one."""
    similar = difflib.get_close_matches(name, list(values), n=1)
    hint = f" (did you mean --{similar[0]}?)" if similar else ""
    return f"--{name}: there is no such flag{hint}; --help shows those accepted"


def illegal_value(values: flags.FlagValues, message: str) -> str:
    """One line for a value of the wrong type: the flag, what came, and what is accepted."""
    message = message.replace("\n", " ")
    for name in values:
        start = f"flag --{name}="
        if message.startswith(start):
            got = message[len(start) :].partition(": ")[0]
            return f"--{name}: got {got!r}; accepted: {_kind(values[name])}"
    unreadable = re.search(r"Unable to open flagfile: \[Errno \d+\] (.*): (.*)", message)
    if unreadable:
        reason, file = unreadable.groups()
        return f"--flagfile: got {file}; accepted: a file with a flag on each line ({reason})"
    return message


def _kind(flag: flags.Flag) -> str:
    kinds = {"bool": "true or false", "int": "an integer", "float": "a number"}
    return kinds.get(flag.flag_type(), flag.flag_type())


def _line(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    # absl adds this to the help of a flag that may be given several times.
    help_text = (flag.help or "").partition(";\n    repeat this option")[0]
    if flag.default not in (None, [], "", False) and "Default" not in help_text:
        shown = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        help_text += f" Default: {shown}."
    return textwrap.fill(
        f"  {name}  {help_text}", _WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False
    )
