"""The benchmark of the OptFlow regularizer measures what it says; speed is not tested."""

import json

import numpy as np

from experiments.benchmarks import optflow as bench
from experiments.benchmarks import optflow_peers
from experiments.cli import main as command
from optflow_jax import _solvers


def test_every_solver_of_the_library_is_measured():
    assert set(bench.SOLVERS) == set(_solvers.SOLVERS)
    assert bench.SOLVERS[0] == "auto"


def test_one_set_is_measured_with_its_errors():
    result = bench.bench_set((2, 2, 3, 3), 1.0, repetitions=2, budget=0.1)
    result["ratios"] = bench.ratios(result["methods"])
    assert result["methods"].keys() == {*bench.SOLVERS, *optflow_peers.PEERS}
    for row in result["methods"].values():
        assert row["milliseconds"] > 0
        assert row["cost_error"] < 1e-5 and row["gradient_error"] < 1e-5
    assert result["ratios"]["best jax peer"] == min(
        result["ratios"][peer] for peer in optflow_peers.JAX_PEERS
    )
    text = bench.table("2 of 2x3x3", 1.0, result)
    assert all(name in text for name in result["methods"])


def test_the_command_measures_the_sets_and_scales_that_it_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SETS", {"1 of 2x3x3": (1, 2, 3, 3), "other": (1, 2, 3, 3)})
    monkeypatch.setattr(bench, "SOLVERS", ("auto",))
    monkeypatch.setattr(bench, "PEERS", {"scipy as in the paper": bench.scipy_per_filter})
    monkeypatch.setattr(bench, "ONE_BY_ONE", ("scipy as in the paper",))
    out = tmp_path / "new" / "results.json"
    results = command.call(
        bench.main, bench.define, "--sets=1 of 2x3x3", "--scales=0.5,2", "--repetitions=1",
        f"--out={out}",
    )  # fmt: skip
    assert list(results["sets"]) == ["1 of 2x3x3, scale 0.5", "1 of 2x3x3, scale 2"]
    written = json.loads(out.read_text())
    assert written["sets"].keys() == results["sets"].keys() and written["environment"]["commit"]
    # R(s W) grows with s, and the errors are relative.
    for result in written["sets"].values():
        assert result["methods"]["auto"]["turns"] == 1
        assert result["methods"]["auto"]["cost_error"] < 1e-5
    assert "weights of scale 0.5" in capsys.readouterr().out


def test_a_slow_method_runs_once():
    calls = {"slow": lambda: np.zeros(1), "fast": lambda: np.zeros(1)}
    seconds = bench._in_turns(calls, {"slow": 1, "fast": 3})
    assert {name: len(times) for name, times in seconds.items()} == {"slow": 1, "fast": 3}
