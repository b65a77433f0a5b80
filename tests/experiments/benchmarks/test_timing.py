"""Timing in turns: which calls are made, not how fast they are."""

import numpy as np

from experiments.benchmarks import timing


def test_calls_are_made_in_turns():
    made = []
    seconds = timing.in_turns({name: lambda name=name: made.append(name) for name in "ab"}, 3)
    assert made[:4] == ["a", "a", "b", "b"]
    assert [sorted(made[i : i + 2]) for i in (4, 6, 8)] == [["a", "b"]] * 3
    assert all(times.shape == (3,) and (times > 0).all() for times in seconds.values())


def test_no_turn_begins_after_the_time_is_over():
    made = []
    seconds = timing.in_turns({"a": lambda: made.append("a")}, 5, seconds=0.0, warm=0)
    assert made == ["a"] and seconds["a"].shape == (1,)


def test_quartiles():
    assert timing.quartiles(np.array([1.0, 2, 3, 4, 5])) == {"median": 3, "low": 2, "high": 4}
