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


def test_the_command_measures_every_method_with_its_errors(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "SETS", {"2 of 2x3x3": (2, 2, 3, 3), "other": (2, 2, 3, 3)})
    out = tmp_path / "new" / "results.json"
    results = command.call(
        bench.main, bench.define, "--sets=2 of 2x3x3", "--scales=1", "--repetitions=2",
        "--budget=0.1", f"--out={out}",
    )  # fmt: skip
    assert list(results["sets"]) == ["2 of 2x3x3, scale 1"]
    (result,) = results["sets"].values()
    assert result["methods"].keys() == {*bench.SOLVERS, *optflow_peers.PEERS}
    for row in result["methods"].values():
        assert row["milliseconds"] > 0 and 1 <= row["turns"] <= 2
        assert row["cost_error"] < 1e-5 and row["gradient_error"] < 1e-5
    assert result["ratios"]["best jax peer"] == min(
        result["ratios"][peer] for peer in optflow_peers.JAX_PEERS
    )
    written = json.loads(out.read_text())
    assert written["sets"].keys() == results["sets"].keys() and "device" in written["environment"]
    text = capsys.readouterr().out
    assert "2 of 2x3x3, weights of scale 1 (" in text
    assert all(name in text for name in result["methods"])


def test_a_slow_method_runs_once():
    calls = {"slow": lambda: np.zeros(1), "fast": lambda: np.zeros(1)}
    seconds = bench._in_turns(calls, {"slow": 1, "fast": 3})
    assert {name: len(times) for name, times in seconds.items()} == {"slow": 1, "fast": 3}
