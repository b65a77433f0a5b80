"""Settings with everything that is known about them: default, help, what is accepted, the flag.

A configuration is a frozen dataclass derived from `Config`; each field is made by `setting`, or is
another configuration. From the metadata come the checks, the command-line flags, the names that
--sweep accepts and what a run records.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.system.errors import ConfigError


def setting(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    flag: str | None = None,
    search: tuple[float, float] | None = None,
    search_relative: bool = False,
) -> Any:
    """A field of a `Config`.

    Args:
      default: its value where neither a preset nor a flag gives one.
      help: what --help says.
      choices: the accepted strings.
      minimum: the least accepted number.
      above: every accepted number is greater.
      below: every accepted number is less.
      flag: the name of its flag where it is not the field's; "" for none.
      search: range from which --random_search draws it, log-uniformly.
      search_relative: the range is in multiples of the baseline's value.
    """
    metadata = {
        "help": help,
        "choices": choices,
        "minimum": minimum,
        "above": above,
        "below": below,
        "flag": flag,
        "search": search,
        "search_relative": search_relative,
    }
    return dataclasses.field(default=default, metadata=metadata)


def composed(factory: type, *, prefix: str = "", without: tuple[str, ...] = ()) -> Any:
    """A field of a `Config` that is a `Config` itself.

    Args:
      factory: the class.
      prefix: is put in front of the names of its flags.
      without: names of flags of it that the experiment does not have.
    """
    return dataclasses.field(
        default_factory=factory, metadata={"prefix": prefix, "without": without}
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all configurations: checks every setting when it is made.

    Raises:
      ConfigError: naming the field, what came and what is accepted.
    """

    def __post_init__(self):
        used = self.used()
        for field in dataclasses.fields(self):
            if "help" in field.metadata and field.name in used:
                check(field, getattr(self, field.name))

    def used(self) -> set[str]:
        """Names of the fields that the result depends on; the others are not recorded."""
        return {field.name for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One setting inside a composed configuration.

    Attributes:
      flag: its name on the command line, unique in the configuration.
      path: names of the fields that lead to it.
      field: the dataclass field.
      type: bool, int, float or str.
      has_flag: whether the command line has a flag for it.
    """

    flag: str
    path: tuple[str, ...]
    field: dataclasses.Field
    type: type
    has_flag: bool = True


def leaves(config: type | Config) -> Iterator[Leaf]:
    """Every setting of a configuration (a class or an instance), in the order of its fields."""
    hints = typing.get_type_hints(config if isinstance(config, type) else type(config))
    for field in dataclasses.fields(config):
        kind = _plain(hints[field.name])
        if dataclasses.is_dataclass(kind):
            prefix = field.metadata.get("prefix", "")
            for leaf in leaves(kind):
                flag = prefix + leaf.flag
                yield dataclasses.replace(
                    leaf,
                    flag=flag,
                    path=(field.name, *leaf.path),
                    has_flag=leaf.has_flag and leaf.flag not in field.metadata.get("without", ()),
                )
        else:
            flag = field.metadata.get("flag")
            yield Leaf(
                flag=field.name if flag in (None, "") else flag,
                path=(field.name,),
                field=field,
                type=kind,
                has_flag="help" in field.metadata and flag != "",
            )


def get(config: Config, flag: str) -> Any:
    """The value of the setting with this flag name."""
    value = config
    for name in _leaf(type(config), flag).path:
        value = getattr(value, name)
    return value


def with_settings(config: Config, changes: Mapping[str, Any]) -> Config:
    """The configuration with some settings replaced, each named by its flag.

    All changes are made before anything is checked.
    """
    paths = {_leaf(type(config), flag).path: value for flag, value in changes.items()}
    return _replaced(config, paths)


def record(config: Any) -> dict[str, Any]:
    """Every setting that is used, by the name of its flag: what a run is known by.

    Args:
      config: a `Config`, another dataclass, or a mapping.
    """
    if isinstance(config, Mapping):
        return dict(config)
    if not isinstance(config, Config):
        return dataclasses.asdict(config)
    recorded = {}
    for leaf in leaves(config):
        owner: Any = config
        used = True
        for name in leaf.path[:-1]:
            used = used and name in owner.used()
            owner = getattr(owner, name)
        if used and leaf.path[-1] in owner.used():
            recorded[leaf.flag] = getattr(owner, leaf.path[-1])
    return recorded


def check(field: dataclasses.Field, value: Any) -> None:
    """Raises a ConfigError unless the metadata of the field accepts the value."""
    about = field.metadata
    name = about.get("flag") or field.name
    if about["choices"] is not None:
        one_of(name, value, about["choices"])
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    low, above, below = about["minimum"], about["above"], about["below"]
    fits = (
        math.isfinite(value)
        and (low is None or value >= low)
        and (above is None or value > above)
        and (below is None or value < below)
    )
    if not fits:
        raise ConfigError(name, value, accepted_numbers(value, low, above, below))


def accepted_numbers(
    value: Any, minimum: float | None, above: float | None, below: float | None
) -> str:
    """What numbers a setting accepts, in words."""
    kind = "an integer" if isinstance(value, int) else "a finite number"
    limits = [
        f"{sign} {limit:g}"
        for sign, limit in ((">=", minimum), (">", above), ("<", below))
        if limit is not None
    ]
    return " ".join([kind, " and ".join(limits)]).strip()


def one_of(name: str, value: Any, accepted: tuple[str, ...]) -> None:
    """Raises a ConfigError unless the value is one of those accepted."""
    if value not in accepted:
        raise ConfigError(name, repr(value), ", ".join(accepted))


def at_least(name: str, value: float, low: float) -> None:
    """Raises a ConfigError unless the value is a finite number, `low` or greater."""
    if not (math.isfinite(value) and value >= low):
        raise ConfigError(name, value, accepted_numbers(value, low, None, None))


def above(name: str, value: float, low: float) -> None:
    """Raises a ConfigError unless the value is a finite number greater than `low`."""
    if not (math.isfinite(value) and value > low):
        raise ConfigError(name, value, accepted_numbers(value, None, low, None))


def _leaf(config: type, flag: str) -> Leaf:
    return next(leaf for leaf in leaves(config) if leaf.flag == flag)


def _replaced(config: Config, paths: dict[tuple[str, ...], Any]) -> Config:
    here: dict[str, Any] = {}
    below: dict[str, dict[tuple[str, ...], Any]] = {}
    for (name, *rest), value in paths.items():
        if rest:
            below.setdefault(name, {})[tuple(rest)] = value
        else:
            here[name] = value
    for name, inner in below.items():
        here[name] = _replaced(getattr(config, name), inner)
    return dataclasses.replace(config, **here)


def _plain(hint: Any) -> Any:
    """int of `int | None`, and any other type as it is."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return next(kind for kind in typing.get_args(hint) if kind is not type(None))
    return hint
