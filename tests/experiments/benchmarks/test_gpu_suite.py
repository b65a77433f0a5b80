"""The suite: order, budget, errors and files, with parts that measure nothing."""

import json

import pytest

from experiments.benchmarks import gpu_suite
from experiments.benchmarks.gpu import runner, setup
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.runner import Part
from experiments.cli import main as command
from experiments.system import environment

NAMES = [part.name for part in gpu_suite.PARTS]


class Time:
    """A clock's `now` that goes on only when it is told to."""

    def __init__(self):
        self.seconds = 0.0

    def __call__(self):
        return self.seconds


def parts_of(**measures):
    return [
        Part(name, f"about {name}", measures[name], lambda results: [(k, "v") for k in results])
        for name in NAMES
        if name in measures
    ]


def quick(own, clock, results):
    results["number"] = 1


def run(parts, tmp_path, time, seconds=100.0):
    given = setup.Setup(setup.REDUCED, None, "", tmp_path, notice=lambda line: None)
    return runner.run(parts, given, Clock(seconds, time), {"environment": {"device": "d"}})


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_budget_stops_the_suite_and_finished_parts_are_there(tmp_path):
    time = Time()

    def slow(own, clock, results):
        results["number"] = 2
        time.seconds += 95

    records = run(
        parts_of(agreement=quick, training_step=slow, sobolev=quick, paired=quick), tmp_path, time
    )
    assert [record["status"] for record in records.values()] == [
        runner.MEASURED, runner.MEASURED, runner.NOT_STARTED, runner.NOT_STARTED,
    ]  # fmt: skip
    assert files(tmp_path) == [
        "agreement.json", "paired.json", "sobolev.json", "training_step.json",
    ]  # fmt: skip
    found = json.loads((tmp_path / "training_step.json").read_text())
    assert found["results"] == {"number": 2} and found["environment"] == {"device": "d"}
    assert json.loads((tmp_path / "sobolev.json").read_text())["results"] == {}


def test_a_file_is_there_as_soon_as_its_part_has_ended(tmp_path):
    seen = []
    second = lambda own, clock, results: seen.extend(files(tmp_path))  # noqa: E731
    run(parts_of(agreement=quick, training_step=second), tmp_path, Time())
    assert seen == ["agreement.json"]


def test_a_part_that_raises_is_recorded_with_what_it_had_measured(tmp_path, capsys):
    def broken(own, clock, results):
        results["number"] = 3
        raise RuntimeError("no such kernel\nand more")

    records = run(parts_of(agreement=broken, training_step=quick), tmp_path, Time())
    assert records["agreement"]["status"] == runner.FAILED
    assert records["agreement"]["error"] == "RuntimeError: no such kernel"
    assert records["agreement"]["results"] == {"number": 3}
    assert records["training_step"]["status"] == runner.MEASURED
    assert "no such kernel" in capsys.readouterr().err


def test_each_part_gets_its_share_and_the_last_one_what_is_left(tmp_path):
    given = {}

    def note(name):
        return lambda own, clock, results: given.setdefault(name, clock.left)

    run(parts_of(**{name: note(name) for name in NAMES}), tmp_path, Time())
    shares = setup.REDUCED.shares
    assert {n: given[n] for n in NAMES[:-1]} == pytest.approx(
        {n: 100 * shares[n] for n in NAMES[:-1]}
    )
    assert given[NAMES[-1]] == 100 - runner.SECONDS_TO_END


@pytest.mark.parametrize("sizes", [setup.FULL, setup.REDUCED], ids=lambda sizes: sizes.name)
def test_the_shares_are_those_of_the_parts(sizes):
    assert list(sizes.shares) == NAMES
    assert sum(sizes.shares.values()) == pytest.approx(1)


def test_the_command_writes_a_table_and_one_file_of_everything(tmp_path, monkeypatch, capsys):
    parts = parts_of(agreement=quick, paired=lambda own, clock, results: None)
    monkeypatch.setattr(gpu_suite, "PARTS", parts)
    out = tmp_path / "results"
    command.call(gpu_suite.main, gpu_suite.define, f"--out={out}", f"--data_dir={tmp_path}")
    assert files(out) == ["agreement.json", "paired.json", "suite.json", "summary.md"]
    text = (out / "suite.json").read_text()
    found = json.loads(text)
    assert found["sizes"] == "reduced for a CPU" and found["budget_seconds"] == 120
    assert found["environment"].keys() == environment.describe().keys()
    assert found["parts"]["agreement"]["results"] == {"number": 1}
    assert found["parts"]["paired"]["status"] == runner.NOTHING
    assert str(tmp_path) not in text
    summary = (out / "summary.md").read_text()
    assert "| agreement | about agreement | measured" in summary and "| number | v |" in summary
    printed = capsys.readouterr().out
    assert "sizes: reduced for a CPU" in printed and summary in printed


def test_only_the_parts_asked_for_are_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_suite, "PARTS", parts_of(agreement=quick, sobolev=quick))
    found = command.call(
        gpu_suite.main, gpu_suite.define, f"--out={tmp_path}", "--parts=sobolev",
        "--budget_seconds=5",
    )  # fmt: skip
    assert list(found["parts"]) == ["sobolev"] and found["budget_seconds"] == 5


def test_a_gpu_gets_the_full_sizes():
    assert gpu_suite.sizes_for("gpu") is setup.FULL and setup.FULL.depth == 56
    assert gpu_suite.sizes_for("cpu") is setup.REDUCED
