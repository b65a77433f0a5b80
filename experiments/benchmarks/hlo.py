"""What a compiled program launches, read from its text after all of XLA's passes.

Every operation of a scheduled GPU program is one launch (a fusion, a library call, a copy, a
collective), but for those that only name or shape memory. A loop whose number of iterations XLA
knows runs without the host. Of any other loop, and of a conditional, the host must wait for the
predicate, unless the whole of it is recorded as a CUDA graph.
"""

from __future__ import annotations

import collections
import dataclasses
import re

# Operations that launch nothing.
_FREE = {
    "parameter", "constant", "bitcast", "tuple", "get-tuple-element", "while", "conditional",
    "after-all", "call", "async-done", "copy-done", "opt-barrier", "add-dependency", "partition-id",
    "replica-id", "all-reduce-done", "all-gather-done", "collective-permute-done",
}  # fmt: skip
_COLLECTIVES = (
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
    "collective-broadcast",
)  # fmt: skip
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
_TRIPS = re.compile(r"known_trip_count\W{1,5}n\W{1,5}(\d+)")


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop: how often its body runs, or None where only the device knows; and the body."""

    trips: int | None
    body: Part


@dataclasses.dataclass(frozen=True)
class Part:
    """One computation of a program.

    Attributes:
      launches: operations by name, library calls as "custom-call:TARGET".
      loops: the loops inside.
      conditionals: the branches of every conditional inside.
    """

    launches: collections.Counter[str]
    loops: tuple[Loop, ...]
    conditionals: tuple[tuple[Part, ...], ...]

    def all_launches(self) -> collections.Counter[str]:
        """Launches of one run: a known loop's as often as it runs, an unknown loop's once, and of a
        conditional those of its longest branch."""
        total = collections.Counter(self.launches)
        for loop in self.loops:
            for name, count in loop.body.all_launches().items():
                total[name] += count * (loop.trips or 1)
        for branches in self.conditionals:
            total += max((b.all_launches() for b in branches), key=lambda c: c.total())
        return total

    def unknown_loops(self) -> int:
        """Loops at any depth whose number of iterations the host cannot know."""
        own = sum(loop.trips is None for loop in self.loops)
        return own + sum(part.unknown_loops() for part in self._inside())

    def all_conditionals(self) -> int:
        """Conditionals at any depth."""
        return len(self.conditionals) + sum(part.all_conditionals() for part in self._inside())

    def longest_loop(self) -> Loop | None:
        """The known loop inside with the most launches: the steps of a scanned program."""
        known = [loop for loop in self.loops if loop.trips is not None]
        return max(known, key=lambda loop: loop.body.all_launches().total(), default=None)

    def summary(self) -> dict[str, int]:
        """Counts for a table, of one run."""
        launches = self.all_launches()

        def count(*words):
            return sum(n for name, n in launches.items() if any(word in name for word in words))

        return {
            "launches": launches.total(),
            "convolutions": count("conv"),
            "other_library_calls": sum(
                n
                for name, n in launches.items()
                if name.startswith("custom-call:") and "conv" not in name
            ),
            "copies": launches["copy"] + launches["copy-start"],
            "collectives": count(*_COLLECTIVES),
            "conditionals": self.all_conditionals(),
            "unknown_loops": self.unknown_loops(),
        }

    def _inside(self):
        yield from (loop.body for loop in self.loops)
        for branches in self.conditionals:
            yield from branches


def read(text: str) -> Part:
    """The entry computation of a compiled program, from `compiled.as_text()`."""
    computations: dict[str, list[str]] = {}
    entry = current = None
    for line in text.splitlines():
        if head := _HEAD.match(line):
            current = head[2]
            computations[current] = []
            entry = current if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (operation := _OPERATION.match(line)):
            computations[current].append(operation[1])
    if entry is None:
        raise ValueError("text: got no ENTRY computation; accepted: the text of an HLO module")
    return _part(computations, entry)


def _part(computations: dict[str, list[str]], name: str) -> Part:
    launches: collections.Counter[str] = collections.Counter()
    loops, conditionals = [], []
    for line in computations[name]:
        kind = _kind(line)
        if kind == "custom-call":
            target = re.search(r'custom_call_target="([^"]+)"', line)
            kind += ":" + (target[1] if target else "unknown")
        if kind not in _FREE:
            launches[kind] += 1
        elif kind == "while":
            trips = _TRIPS.search(line)
            body = _part(computations, _named(line, "body"))
            loops.append(Loop(int(trips[1]) if trips else None, body))
        elif kind == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", line)
            names = (
                [branch.strip().lstrip("%") for branch in listed[1].split(",")]
                if listed
                else [_named(line, f"{which}_computation") for which in ("true", "false")]
            )
            conditionals.append(tuple(_part(computations, branch) for branch in names))
        elif kind == "call":
            called = _part(computations, _named(line, "to_apply"))
            launches += called.launches
            loops += called.loops
            conditionals += called.conditionals
    return Part(launches, tuple(loops), tuple(conditionals))


def _kind(line: str) -> str:
    """The name of an operation, from what is behind its "=": a shape, the name, a bracket."""
    if line.startswith("("):  # a tuple of shapes
        depth = end = 0
        while end == 0 or depth > 0:
            depth += (line[end] == "(") - (line[end] == ")")
            end += 1
        line = line[end:].strip()
    else:
        line = line.split(" ", 1)[-1]
    found = re.match(r"([\w\-]+)\(", line)
    return found[1] if found else "unknown"


def _named(line: str, attribute: str) -> str:
    found = re.search(rf"\b{attribute}=%?([\w.\-]+)", line)
    if found is None:
        raise ValueError(f"text: got an operation without {attribute}: {line[:200]}")
    return found[1]
