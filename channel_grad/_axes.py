"""Axis specs: which axis of which leaf a metric acts along.

A kernel's rank does not say which of its axes holds the output channels: Flax puts them last,
PyTorch and Equinox first, and some transposed convolutions swap them. So a spec is any of

* a function ``(path, leaf) -> axis``, with the path as `jax.tree_util` gives it;
* a tree of axes with the structure of the parameters, or of the top of it;
* a `Layout`, which stands for its ``output_axes``;
* an `AxisSpec`, which holds one of these; the presets are of that kind.

An axis is an integer (negative ones count from the end), or None to leave the leaf alone, or a
tuple of integers: those axes are flattened into a single one, the last of them running fastest.
(To smooth along one axis after another instead, chain two transformations.) In a tree of axes, a
tuple of integers is always one such leaf.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.tree_util as jtu
import numpy as np

Axis = int | tuple[int, ...] | None
Path = tuple[Any, ...]

ACCEPTED = "an integer, a tuple of integers, or None"

# Flax NNX ends the path of a parameter's value with one of these.
_WRAPPERS = ("value", "raw_value")
# What libraries call the bias of a convolution or dense layer, and the offset of a normalization.
_BIASES = ("bias", "b", "offset")


class Decision(NamedTuple):
    """The axis of one leaf, and why.

    Attributes:
        axis: what a user may give: an integer, a tuple of integers, or None.
        why: shown by `describe`.
        in_doubt: whether a leaf that is left alone looks like a convolution's kernel.
    """

    axis: Any
    why: str
    in_doubt: bool = False


class Choice(NamedTuple):
    """What a spec does with one leaf of a tree; axes are numbers >= 0 in the order given."""

    path: Path
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    why: str
    in_doubt: bool = False


class Surroundings:
    """What a rule may ask about the tree around a leaf.

    Args:
        tree: the parameters or gradients; None where they are not known.
    """

    def __init__(self, tree: Any):
        self._tree = tree
        self._biases: dict[tuple[str, ...], tuple[int, ...]] = {}
        self._plain: set[tuple[str, ...]] = set()
        for path, leaf in jtu.tree_leaves_with_path(tree):
            *modules, name = leaf_names(path)
            if name not in _BIASES:
                continue
            shape = tuple(np.shape(leaf))
            self._biases[tuple(modules)] = shape
            if len(shape) == 1:
                self._plain |= {tuple(modules[:depth]) for depth in range(1, len(modules) + 1)}

    def bias(self, modules: Sequence[str]) -> tuple[int, ...] | None:
        """The shape of the bias of a module, given by the names that lead to it, or None."""
        return self._biases.get(tuple(modules))

    def has_plain_bias(self, modules: Sequence[str]) -> bool:
        """Whether a bias with one axis lies below these names; in a stack it would have two."""
        return tuple(modules) in self._plain

    def owner(self, path: Path) -> Any:
        """The container that holds a leaf, such as an Equinox module, or None."""
        names = path_names(path)
        node = self._tree
        try:
            for key in path[: len(names) - 1]:
                if isinstance(key, jtu.GetAttrKey):
                    node = getattr(node, key.name)
                else:
                    node = node[_plain(key)]
        except (AttributeError, KeyError, IndexError, TypeError):
            return None  # some containers name their children otherwise than they find them
        return node


# (path, leaf, the tree around it) -> decision
Rule = Callable[[Path, Any, Surroundings], Decision]


class AxisSpec:
    """An axis spec as one object: it can be asked, restricted and combined.

    ``spec.resolve(tree)`` gives the axes of all leaves of a tree, ``spec.axis(path, leaf)`` that of
    one leaf by itself. ``spec.exclude(regex)`` and ``spec.only(regex)`` restrict a spec to some
    paths, and ``first | second`` asks the second spec about the leaves that the first one leaves
    alone. Paths are matched as in ``"encoder/attention/query/kernel"``.

    A spec can be pickled if the function in it can. `optax.inject_hyperparams` takes every argument
    that can be called for a schedule: functions and callable trees go through it as AxisSpec.

    Args:
        spec: a function ``(path, leaf) -> axis``, a tree of axes, a Layout, or an AxisSpec.
        name: shown by repr.

    Raises:
        ValueError: if spec is an array, or a tree with an entry that is not an axis.

    Example:
        >>> import channel_grad, jax.numpy as jnp
        >>> stem, head = jnp.ones((3, 3, 1, 8)), jnp.ones((8, 2))
        >>> params = {"head": {"kernel": head}, "stem": {"kernel": stem}}
        >>> matrices = channel_grad.AxisSpec(lambda path, leaf: -1 if leaf.ndim == 2 else None)
        >>> list((channel_grad.output_axes | matrices).resolve(params).values())
        [(1,), (3,)]
        >>> list(channel_grad.output_axes.exclude("^stem").resolve(params).values())
        [None, None]
    """

    def __init__(self, spec: Any, name: str | None = None):
        spec = getattr(spec, "output_axes", spec)  # a Layout
        if isinstance(spec, jax.Array):
            raise ValueError(
                f"axes: got an array, {spec!r}; accepted: an integer, a tuple, None, a tree of "
                "these, a function (path, leaf) -> axis, or an AxisSpec. "
                "optax.inject_hyperparams makes an array of an integer: write axes=AxisSpec(-1)"
            )
        if isinstance(spec, AxisSpec):
            self._rule, self._name = spec._rule, name or spec._name
        else:
            # A tree of axes may be an Equinox module, and then it is callable as well.
            is_function = callable(spec) and jtu.all_leaves([spec])
            self._rule = _Function(spec) if is_function else _entries(spec)
            self._name = name or f"AxisSpec({spec!r})"

    @classmethod
    def from_rule(cls, rule: Rule, name: str) -> AxisSpec:
        """A spec that also says why, and may look at the tree around a leaf."""
        spec = cls(None, name)
        spec._rule = rule
        return spec

    def __repr__(self) -> str:
        return self._name

    def axis(self, path: Path, leaf: Any) -> Any:
        """The axis of one leaf by itself, whose bias and module are not known."""
        return self._rule(path, leaf, Surroundings(None)).axis

    def __or__(self, other: Any) -> AxisSpec:
        """This spec, and the other one for the leaves that this one leaves alone."""
        second = AxisSpec(other)
        return AxisSpec.from_rule(_Either(self._rule, second._rule), f"{self!r} | {second!r}")

    def only(self, pattern: str) -> AxisSpec:
        """This spec for the leaves whose path matches a regular expression (`re.search`)."""
        return self._where(pattern, True)

    def exclude(self, pattern: str) -> AxisSpec:
        """This spec, but for the leaves whose path matches a regular expression (`re.search`)."""
        return self._where(pattern, False)

    def at_least(self, channels: int) -> AxisSpec:
        """This spec for the leaves whose axis has at least so many entries.

        Example:
            >>> import channel_grad, jax.numpy as jnp
            >>> params = {"narrow": {"kernel": jnp.ones((3, 3, 8, 4))}}
            >>> print(channel_grad.describe(params, channel_grad.output_axes.at_least(16)))
            leaf           shape         axis       why
            narrow/kernel  (3, 3, 8, 4)  unchanged  4 entries, fewer than 16
            channel_grad.output_axes.at_least(16) changes the gradients of 0 of 1 leaves
        """
        if not isinstance(channels, int) or channels < 1:
            raise ValueError(f"channels: got {channels!r}; accepted: an integer >= 1")
        rule = _AtLeast(self._rule, channels)
        return AxisSpec.from_rule(rule, f"{self!r}.at_least({channels})")

    def _where(self, pattern: str, wanted: bool) -> AxisSpec:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"pattern: got {pattern!r} ({error}); accepted: a regular expression"
            ) from None
        rule = _Matching(self._rule, pattern, wanted)
        return AxisSpec.from_rule(rule, f"{self!r}.{rule.call}")

    def choices(self, tree: Any) -> Iterator[Choice]:
        """What this spec does with each leaf of a tree, and why."""
        surroundings = Surroundings(tree)
        for path, leaf in jtu.tree_leaves_with_path(tree):
            shape = tuple(np.shape(leaf))
            found = self._rule(path, leaf, surroundings)
            axes = None if found.axis is None else _leaf_axes(path, shape, found.axis)
            yield Choice(path, shape, axes, found.why, found.in_doubt)

    def resolve(self, tree: Any) -> dict[Path, tuple[int, ...] | None]:
        """For each leaf's path, its axes as numbers >= 0, in the order given, or None.

        Args:
            tree: gradients or parameters; arrays, tracers or `jax.ShapeDtypeStruct`.

        Raises:
            ValueError: if a leaf has no such axis, or a tree of axes has no entry for it; names
                the leaf's path.
        """
        return {choice.path: choice.axes for choice in self.choices(tree)}


@dataclasses.dataclass(frozen=True)
class _Function:
    """A user's function as a rule."""

    function: Callable[[Path, Any], Any]

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        return Decision(self.function(path, leaf), "the function's answer")


@dataclasses.dataclass(frozen=True)
class _Either:
    """The first rule, and the second one for the leaves that the first one leaves alone."""

    first: Rule
    second: Rule

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        found = self.first(path, leaf, around)
        return self.second(path, leaf, around) if found.axis is None else found


@dataclasses.dataclass(frozen=True)
class _Matching:
    """A rule for the leaves whose path matches a pattern, or for those whose path does not."""

    rule: Rule
    pattern: str
    wanted: bool

    @property
    def call(self) -> str:
        return f"{'only' if self.wanted else 'exclude'}({self.pattern!r})"

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        if bool(re.search(self.pattern, path_string(path))) == self.wanted:
            return self.rule(path, leaf, around)
        return Decision(None, f"left out by {self.call}")


@dataclasses.dataclass(frozen=True)
class _AtLeast:
    """A rule for the leaves whose axis has at least so many entries."""

    rule: Rule
    channels: int

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        found = self.rule(path, leaf, around)
        if found.axis is None:
            return found
        shape = tuple(np.shape(leaf))
        n = math.prod(shape[axis] for axis in _leaf_axes(path, shape, found.axis))
        if n < self.channels:
            return Decision(None, f"{n} entries, fewer than {self.channels}")
        return found


@dataclasses.dataclass(frozen=True)
class _Entries:
    """A tree of axes as a rule: the entry whose path is the start of the leaf's path.

    By path rather than by structure, because optax.masked replaces leaves and whole branches with
    empty nodes.
    """

    entries: Mapping[Path, Any]

    def __call__(self, path: Path, leaf: Any, around: Surroundings) -> Decision:
        plain = tuple(map(_plain, path))
        for length in range(len(plain) + 1):
            if plain[:length] in self.entries:
                where = "/".join(map(str, plain[:length])) or "the whole tree"
                return Decision(self.entries[plain[:length]], f"the entry for {where}")
        names = ("/".join(map(str, entry)) or "(the whole tree)" for entry in self.entries)
        raise ValueError(
            f"axes: got no entry for the leaf {jtu.keystr(path)}, only for "
            f"{', '.join(names) or 'none'}; accepted: an axis, a tuple of axes or None for every "
            "leaf, or for a branch above it"
        )


def _entries(axes: Any) -> _Entries:
    """The entries of a tree of axes by their paths."""

    def is_axis(node: Any) -> bool:
        numbers = isinstance(node, tuple) and node and all(isinstance(i, int) for i in node)
        return node is None or bool(numbers)

    entries = {
        tuple(map(_plain, path)): axis
        for path, axis in jtu.tree_leaves_with_path(axes, is_leaf=is_axis)
    }
    for axis in entries.values():
        integer = hasattr(axis, "__index__") and not isinstance(axis, bool)
        if not is_axis(axis) and not integer:
            raise ValueError(f"axes: got {axis!r}; accepted: {ACCEPTED}")
    return _Entries(entries)


def normalize_axes(axis: Any, shape: tuple[int, ...], name: str, where: str) -> tuple[int, ...]:
    """One axis or several as a tuple of numbers >= 0, in the order given.

    Args:
        axis: an integer or a tuple of integers.
        shape: the shape of the array that has these axes.
        name, where: the argument and the array, for errors.

    Raises:
        ValueError: if axis is something else, is not an axis of the array, or names one twice.
    """
    rank = len(shape)
    given = axis if isinstance(axis, tuple) else (axis,)
    try:
        numbers = tuple(operator.index(a) for a in given)
    except TypeError:
        numbers = ()
    accepted = None
    if not numbers or any(isinstance(a, bool) for a in given):
        accepted = ACCEPTED
    elif not all(-rank <= a < rank for a in numbers):
        accepted = f"axes from {-rank} to {rank - 1}" if rank else "None, as it has no axes"
    elif len({a % rank for a in numbers}) < len(numbers):
        accepted = "each axis once"
    if accepted:
        raise ValueError(f"{name}: got {axis!r} for {where} of shape {shape}; accepted: {accepted}")
    return tuple(a % rank for a in numbers)


def path_names(path: Path) -> list[str]:
    """The names on a path: ["conv", "kernel"] for ['conv']['kernel'].value."""
    names = [str(_plain(key)) for key in path]
    while len(names) > 1 and names[-1] in _WRAPPERS:
        names.pop()
    return names


def path_string(path: Path) -> str:
    """The names on a path, joined: "conv/kernel"."""
    return "/".join(path_names(path))


def leaf_names(path: Path) -> list[str]:
    """The names of the modules and of the leaf; Haiku joins them by slashes, PyTorch by dots."""
    return path_string(path).replace(".", "/").split("/")


def _leaf_axes(path: Path, shape: tuple[int, ...], axis: Any) -> tuple[int, ...]:
    return normalize_axes(axis, shape, "axes", f"the leaf {jtu.keystr(path)}")


def _plain(key: Any) -> Any:
    """The name, key or position within a key of a path, whatever the kind of container."""
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return key
