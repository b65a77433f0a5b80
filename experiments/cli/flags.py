"""Flags made from configurations, and configurations made from flags and presets.

A setting is stated once, in the dataclass that holds it. Its flag has no default of its own: the
value of a flag that is left out comes from the preset, else from the dataclass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

from experiments.data.dataset import Dataset
from experiments.system.errors import ConfigError
from experiments.training.settings import Config, Leaf, check, leaves, one_of, with_settings


@dataclasses.dataclass(frozen=True)
class Derived:
    """A preset's value that depends on the dataset or on other settings.

    Attributes:
      text: what --help shows.
      value: (dataset, the settings chosen so far by the names of their flags) to the value.
    """

    text: str
    value: Callable[[Dataset, Mapping[str, Any]], Any]

    def __str__(self) -> str:
        return self.text


Presets = Mapping[str, Mapping[str, Any]]

_DEFINE = {
    bool: flags.DEFINE_bool,
    int: flags.DEFINE_integer,
    float: flags.DEFINE_float,
    str: flags.DEFINE_string,
}


def define_settings(
    values: flags.FlagValues,
    config: type[Config],
    presets: Presets,
    lists: tuple[str, ...] = ("metric",),
) -> None:
    """Defines a flag for each setting of a configuration.

    Args:
      values: where the flags are defined.
      config: the experiment's class.
      presets: by name, values by flag that are not the dataclass's defaults.
      lists: flags that accept several values, separated by commas.
    """
    for leaf in leaves(config):
        if not leaf.has_flag:
            continue
        text = _help(leaf, presets)
        if leaf.flag in lists:
            text += " Several, separated by commas, are compared; the first is the baseline."
            flags.DEFINE_list(leaf.flag, None, text, flag_values=values, module_name=_group(leaf))
        else:
            _DEFINE[leaf.type](leaf.flag, None, text, flag_values=values, module_name=_group(leaf))


def check_given(values: flags.FlagValues, config: type[Config], presets: Presets) -> None:
    """Checks --preset and every flag of a setting that was given, whether the run uses it or not.

    Args:
      values: the parsed flags, "preset" among them.
      config: the experiment's class.
      presets: see `define_settings`.

    Raises:
      ConfigError: naming the flag, what came and what is accepted.
    """
    one_of("preset", values["preset"].value, tuple(presets))
    for leaf in leaves(config):
        given = values[leaf.flag].value if leaf.has_flag else None
        if isinstance(given, list) and not given:
            raise ConfigError(leaf.flag, "none", ", ".join(leaf.field.metadata["choices"]))
        for value in given if isinstance(given, list) else [] if given is None else [given]:
            try:
                check(leaf.field, value)
            except ConfigError as error:  # The flag of a composed configuration has a prefix.
                raise ConfigError(leaf.flag, error.got, error.accepted) from error


def make_config(
    values: flags.FlagValues,
    config: type[Config],
    presets: Presets,
    dataset: Dataset,
    **recorded: Any,
) -> Config:
    """The configuration that flags and --preset ask for.

    Of a flag with several values the first is taken.

    Args:
      values: the parsed flags, "preset" among them.
      config: the experiment's class.
      presets: see `define_settings`.
      dataset: what is learnt from.
      **recorded: settings without a flag.

    Raises:
      ConfigError: naming the flag, what came and what is accepted.
    """
    check_given(values, config, presets)
    chosen: dict[str, Any] = dict(recorded)
    derived: dict[str, Derived] = {}
    for name, value in presets[values["preset"].value].items():
        if isinstance(value, Derived):
            derived[name] = value
        else:
            chosen[name] = value
    for leaf in leaves(config):
        given = values[leaf.flag].value if leaf.has_flag else None
        if given is not None:
            if isinstance(given, list):
                given = given[0]
            chosen[leaf.flag] = given
            derived.pop(leaf.flag, None)
    for name, value in derived.items():
        chosen[name] = value.value(dataset, chosen)
    return with_settings(config(), chosen)


def _group(leaf: Leaf) -> str:
    """The heading of --help under which the flag is shown."""
    if len(leaf.path) == 1:
        return "experiment"
    owner = leaf.path[-2]
    if leaf.path[0] in ("optimizer", "length"):
        return owner
    return " ".join(dict.fromkeys((leaf.path[0], owner)))


def _help(leaf: Leaf, presets: Presets) -> str:
    about = leaf.field.metadata
    parts = [about["help"]]
    if about["choices"]:
        parts.append(f"Accepted: {', '.join(about['choices'])}.")
    by_preset = {
        name: preset.get(leaf.flag, leaf.field.default) for name, preset in presets.items()
    }
    if len({str(value) for value in by_preset.values()}) == 1:
        default = _shown(next(iter(by_preset.values())))
        parts.append(f"Default: {default}." if default else "")
    else:
        told = "; ".join(f"{_shown(value)} ({name})" for name, value in by_preset.items())
        parts.append(f"Default: {told}.")
    return " ".join(part for part in parts if part)


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
