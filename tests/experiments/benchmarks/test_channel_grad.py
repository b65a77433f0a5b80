"""The benchmark measures what it says it does; speed is not tested."""

import json
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import channel_grad
from experiments.benchmarks import channel_grad as bench
from experiments.cli import main as command


def test_every_method_is_measured_against_the_copy():
    result = bench.bench_shape((1, 1, 2, 64), turns=2)
    assert result["arrays_per_call"] == bench.MOST
    assert result["over_copy"].keys() == result["microseconds"].keys() == bench.METHODS.keys()
    assert result["over_copy"]["copy"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    table = bench.shape_table({"1x1x2x64": result})
    assert all(name in table for name in bench.METHODS)


def test_methods_agree():
    f = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    for name, method in bench.METHODS.items():
        reference = bench.METHODS.get(name.split()[0])
        if reference and name != "times two":
            np.testing.assert_allclose(method(f), reference(f), rtol=1e-4, atol=1e-5)


class OneConvolution(nn.Module):
    """In place of the ResNet, which takes long to compile and is tested elsewhere."""

    depth: int
    num_classes: int
    dtype: Any

    @nn.compact
    def __call__(self, images, train):
        x = nn.Conv(4, (3, 3), dtype=self.dtype)(images)
        x = nn.BatchNorm(use_running_average=not train)(x)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2)))


def test_the_command_measures_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "ResNet", OneConvolution)
    monkeypatch.setattr(bench, "SHAPES", {"1x1x2x64": (1, 1, 2, 64)})
    monkeypatch.setattr(bench, "QUICK_SHAPES", ("1x1x2x64",))
    monkeypatch.setattr(bench, "METHODS", dict.fromkeys(bench.METHODS, jnp.copy))
    out = tmp_path / "results.json"
    command.call(
        bench.main, bench.define, "--quick", "--batch_sizes=2", "--depth=8", "--repeats=1",
        "--steps=1", f"--out={out}",
    )  # fmt: skip
    results = json.loads(out.read_text())
    assert results["kernels"].keys() == {"1x1x2x64"} and results["steps"].keys() == {"2"}
    assert results["steps"]["2"]["overhead_percent"].keys() == {"l2 again", "sobolev"}
    assert (results["settings"]["depth"], results["settings"]["repeats"]) == (8, 1)
    assert results["steps"]["2"]["step_milliseconds"].keys() == {"l2", "l2 again", "sobolev"}
    assert results["steps"]["2"]["metric_percent_of_step"]["sobolev"]["median"] > 0
    text = capsys.readouterr().out
    assert "batch 2: a step takes" in text and "sobolev prefix" in text


def test_no_batch_sizes_is_accepted_and_times_no_step(monkeypatch):
    monkeypatch.setattr(bench, "QUICK_SHAPES", ())
    results = command.call(bench.main, bench.define, "--quick", "--batch_sizes=")
    assert results["steps"] == {}


def test_every_metric_of_the_library_is_timed():
    named = {type(make()) for make in bench.METRICS.values()}
    of_library = {
        value for value in vars(channel_grad).values()
        if isinstance(value, type) and issubclass(value, channel_grad.Metric)
    }  # fmt: skip
    assert named == of_library - {channel_grad.Metric, channel_grad.L2}
    assert bench.METRICS.keys() <= bench.METHODS.keys() & bench.TRANSFORMS.keys()
