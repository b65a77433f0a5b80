"""The text that --help prints, in groups of a screen each."""

from __future__ import annotations

import sys
import textwrap

from absl import flags

_WIDTH = 100
_OTHER = "options"
_groups: dict[str, list[str]] = {}


def group(title: str, *names: str) -> None:
    """Says that --help shows the flags `names` under `title`, in this order."""
    _groups.setdefault(title, []).extend(names)


def text(values: flags.FlagValues) -> str:
    """What --help prints: the command's docstring, then its flags by group."""
    main = sys.modules["__main__"]
    parts = [(main.__doc__ or "").strip()]
    grouped = {name for names in _groups.values() for name in names}
    others = [
        flag.name for flag in values.get_key_flags_for_module(main) if flag.name not in grouped
    ]
    for title, names in [*_groups.items(), (_OTHER, others)]:
        known = [name for name in names if name in values]
        if known:
            parts.append("\n".join([f"{title}:", *(_line(values[name]) for name in known)]))
    return "\n\n".join(parts)


def illegal_value(values: flags.FlagValues, error: flags.IllegalFlagValueError) -> str:
    """One line for a value of the wrong type: the flag, what came, and what is accepted."""
    message = str(error).replace("\n", " ")
    for name in values:
        start = f"flag --{name}="
        if message.startswith(start):
            got = message[len(start) :].partition(": ")[0]
            return f"--{name}: got {got}; accepted: {_kind(values[name])}"
    return message


def _kind(flag: flags.Flag) -> str:
    kinds = {"bool": "true or false", "int": "an integer", "float": "a number"}
    return kinds.get(flag.flag_type(), flag.flag_type())


def _line(flag: flags.Flag) -> str:
    name = f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"
    help_text = flag.help or ""
    if flag.default not in (None, [], "", False) and "efault" not in help_text:
        shown = ",".join(map(str, flag.default)) if isinstance(flag.default, list) else flag.default
        help_text += f" Default: {shown}."
    return textwrap.fill(
        f"  {name}  {help_text}", _WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False
    )
