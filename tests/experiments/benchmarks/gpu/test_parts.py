"""Each part at tiny sizes on the CPU: what its results hold; speed is not tested."""

import dataclasses
import functools
import json
import threading
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from experiments import cifar_resnet56
from experiments.benchmarks.gpu import (
    one_trial,
    optflow_solvers,
    overhead,
    paired,
    setup,
    sobolev,
    timed,
    torch_step,
    training_step,
    trainings,
    trials,
)
from experiments.benchmarks.gpu.clock import Clock
from experiments.benchmarks.gpu.trainings import Training, config
from experiments.data import digits
from experiments.training.execution import Executor, Plan

TINY = dataclasses.replace(
    setup.REDUCED,
    batches=(4,),
    steps={"": 2},
    turns=2,
    channels=(4, 32),
    precisions=("float32",),
    filters=((2, 2, 3, 3), (1, 3, 3, 3)),
)
# Time stands still: what is measured must not depend on how busy this machine is.
ENOUGH = Clock(600, now=lambda: 0.0)


class OneConvolution(nn.Module):
    """In place of the ResNet, which takes long to compile."""

    depth: int
    num_classes: int
    dtype: Any
    stochastic_depth: float

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3), strides=4, dtype=self.dtype)(images)
        x = nn.BatchNorm(use_running_average=not train, dtype=self.dtype)(x)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


@pytest.fixture(scope="module")
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cifar_resnet56, "ResNet", OneConvolution)
        yield


@pytest.fixture(scope="module")
def tiny(small_network, tmp_path_factory):
    """What the parts share, after the first of them."""
    out = tmp_path_factory.mktemp("suite")
    made = setup.Setup(TINY, digits.load(size=8), "", out, notice=lambda line: None)
    made.kept["results"] = {}
    training_step.measure(made, ENOUGH, made.kept["results"])
    return made


def quartiles(value):
    return value.keys() == {"median", "low", "high"} and value["low"] <= value["high"]


def json_of(results):
    """Results are plain values."""
    return json.loads(json.dumps(results))


def test_training_step(tiny):
    results = json_of(tiny.kept["results"])
    assert results["steps"].keys() == {"batch 4, float32"}
    for row in results["steps"].values():
        assert quartiles(row["images_per_second"]) and row["images_per_second"]["low"] > 0
        assert row["flop"] > 4 * 2 * 27 * 4 * 4 and row["bytes"] > 0
        assert row["share_of_roofline"] > 0 and row["bound"] in ("arithmetic", "memory")
        assert row["compile_seconds"] > 0
    assert results["torch"] == {"why_not": "not measured on a CPU"}
    assert isinstance(tiny.kept["l2"], Training)
    assert dict(training_step.rows(results))["PyTorch"] == "not measured on a CPU"


def test_a_dispatch_of_many_steps_costs_as_much_as_one_step(tiny, monkeypatch):
    """An accelerator's plan: the analysis sees the steps of a scan once."""
    one = tiny.kept["l2"].cost()
    plan = Plan(steps_per_dispatch=3, device_resident=True)
    monkeypatch.setattr(trainings, "Executor", functools.partial(Executor, plan=plan))
    training = Training(config(tiny, "l2", 4), tiny.dataset)
    training()
    assert training.steps == 3 and training.images == 12
    many = training.cost()
    assert many["flop"] == pytest.approx(one["flop"], rel=0.2)
    # XLA may count the examples that stay on the device as read in every step.
    resident = tiny.dataset.train.examples.nbytes
    assert many["resident_bytes"] == resident and one["resident_bytes"] == 0
    assert 0.5 * one["bytes"] < many["bytes"] < 1.5 * one["bytes"] + resident


def test_an_unknown_device_has_no_roofline(tiny, monkeypatch):
    monkeypatch.setattr(training_step, "peaks_of", lambda kind, backend: None)
    monkeypatch.setattr(training_step, "Training", lambda *_: tiny.kept["l2"])
    own = dataclasses.replace(tiny, kept={})
    results = {}
    training_step.measure(own, ENOUGH, results)
    assert all(row["share_of_roofline"] is None for row in results["steps"].values())
    assert "peak unknown" in training_step.rows(results)[0][1]


def test_overhead(tiny, monkeypatch):
    monkeypatch.setattr(overhead.channel_grad, "METRICS", {
        name: overhead.channel_grad.METRICS[name] for name in ("l2", "reweighted_l2", "sobolev")
    })  # fmt: skip
    monkeypatch.setattr(overhead, "FIRST", ("sobolev",))
    results = {}
    overhead.measure(tiny, ENOUGH, results)
    results = json_of(results)
    assert results["overhead_percent"].keys() == {"l2 again", "sobolev", "reweighted_l2"}
    assert all(map(quartiles, results["overhead_percent"].values()))
    assert results["alone"].keys() == {"sobolev alone", "reweighted_l2 alone"}
    assert all(row["percent_of_step"] > 0 for row in results["alone"].values())
    assert len(overhead.rows(results)) == 5


def test_sobolev(tiny):
    results = {}
    sobolev.measure(tiny, ENOUGH, results)
    results = json_of(results)
    assert results["lengths"].keys() == {"4", "32"}
    for row in results["lengths"].values():
        assert row["over_copy"].keys() == {"dense", "prefix", "fft"}
        assert row["microseconds"].keys() == {"copy", "dense", "prefix", "fft"}
    assert results["suggested_thresholds"].keys() == {
        "dense_up_to", "dense_up_to_without_prefix", "prefix_up_to",
    }  # fmt: skip
    assert sobolev.rows(results)[-1][0] == "thresholds suggested"


def test_optflow(tiny, monkeypatch):
    monkeypatch.setattr(optflow_solvers, "SOLVERS", ("cg", "sparse_direct"))
    # Tested elsewhere; they take seconds to compile.
    cheap = jax.jit(lambda filters: (jnp.sum(filters, axis=(1, 2, 3)), filters))
    monkeypatch.setattr(optflow_solvers, "ours", lambda solver: cheap)
    monkeypatch.setattr(optflow_solvers, "SPARSE_PIXELS", 18)  # those of the first set
    results = {}
    optflow_solvers.measure(tiny, ENOUGH, results)
    results = json_of(results)
    small, large = results["sets"].values()
    assert small["milliseconds"].keys() == {"cg", "sparse_direct"}
    assert small["over_sparse_direct"]["sparse_direct"] == 1
    assert small["fastest"] in small["milliseconds"]
    assert small["memory_floor_milliseconds"] > 0 and small["over_memory_floor"]["cg"] > 0
    assert large["left_out"] == {"sparse_direct": "takes minutes"}
    assert len(optflow_solvers.rows(results)) == 2


def test_memory_floor():
    # 54 weights are read, 54 slopes and 2 costs written: 440 bytes at 1000 bytes/s.
    assert optflow_solvers.memory_floor((2, 3, 3, 3), 1000.0) == pytest.approx(440.0)


class Thread:
    """In place of a process: the same function, with the small network, in a thread."""

    def __init__(self, command, **_):
        arguments = json.loads(command[-1])
        self._thread = threading.Thread(target=one_trial.main, args=(arguments,))
        self._thread.start()

    def poll(self):
        return None

    def kill(self):
        self._thread.join()

    def wait(self):
        pass


def test_trials(tiny, monkeypatch):
    monkeypatch.setattr(trials.subprocess, "Popen", Thread)
    monkeypatch.setattr(one_trial.data, "load", lambda *_, **__: tiny.dataset)
    results = {}
    trials.measure(tiny, ENOUGH, results)
    results = json_of(results)
    assert results["trials"] == 2 and results["mps_running"] is None
    assert results["images_per_second"].keys() == {"in turn", "vmap", "one process per trial"}
    assert all(rate["median"] > 0 for rate in results["images_per_second"].values())
    assert trials.rows(results)[0] == ("MPS is running", "nothing tells")


def test_a_process_that_dies_is_an_error_with_its_last_line(tiny, monkeypatch):
    command = ["python", "-c", "raise SystemExit('no memory')"]
    popen = trials.subprocess.Popen
    monkeypatch.setattr(trials.subprocess, "Popen", lambda _, **kept: popen(command, **kept))
    with pytest.raises(RuntimeError, match="the process of seed [01] ended: no memory"):
        trials.processes(tiny, Clock(60))


def test_processes_that_are_not_ready_in_time_are_ended(tiny, monkeypatch):
    command, started = ["python", "-c", "import time; time.sleep(60)"], []
    popen = trials.subprocess.Popen

    def start(_, **kept):
        started.append(popen(command, **kept))
        return started[-1]

    monkeypatch.setattr(trials.subprocess, "Popen", start)
    assert trials.processes(tiny, Clock(0.2)) is None
    assert len(started) == 2 and all(process.returncode for process in started)


def test_paired(tiny):
    results = {}
    paired.measure(tiny, Clock(1e-9), results)
    assert results["left_out"] and not (tiny.out / "training").exists()
    results = {}
    clock = Clock(600, now=iter([0.0] * 5 + [600.0] * 9).__next__)
    paired.measure(tiny, clock, results)
    assert results["test_accuracy"].keys() == set(paired.METRICS)
    assert all(len(found) == 1 for found in results["test_accuracy"].values())
    assert (tiny.out / "training" / "summary.json").exists()
    again = {}
    paired.measure(tiny, Clock(600, now=iter([0.0] * 3 + [600.0] * 9).__next__), again)
    assert again["test_accuracy"].keys() == {"l2"}
    assert again["left_out"] == ["reweighted_l2", "sobolev"]
    assert again["test_accuracy"]["l2"] == results["test_accuracy"]["l2"]
    assert "mean of 1" in paired.rows(json_of(results))[0][1]


def test_every_part_starts_from_the_same_program(tiny):
    """So that a later part finds in the cache what an earlier one has compiled."""
    assert config(tiny, "l2", 4) == cifar_resnet56.CifarConfig(
        depth=8,
        optimizer=dataclasses.replace(config(tiny, "l2", 4).optimizer, schedule="cosine"),
        length=config(tiny, "sobolev", 4).length,
    )
    assert config(tiny, "l2", 4, "bfloat16").precision == "bfloat16"
    length = config(tiny, "l2", 4).length
    assert length.steps(len(tiny.dataset.train)) == TINY.steps[""]
    assert length.steps_between_evaluations(len(tiny.dataset.train)) == TINY.steps[""]


def test_calls_that_do_not_fit_are_left_out():
    time, results = [0.0], {}

    def slow():
        time[0] += 6

    made = timed.first_calls(dict.fromkeys("abc", slow), Clock(10, lambda: time[0]), 1, results)
    assert list(made) == ["a", "b", "c"][: len(made)]
    assert results["left_out"] == ["c"]


def test_torch_is_skipped_where_it_is_not_installed(monkeypatch):
    monkeypatch.setattr(torch_step.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(torch_step.importlib.util, "find_spec", lambda name: None)
    assert torch_step.why_not() == "torch is not installed"
