"""The benchmark measures what it says it does; how fast things are is not tested."""

import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import channel_grad as bench


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


def test_step_with_and_without_a_metric(monkeypatch):
    monkeypatch.setattr(bench, "ResNet", OneConvolution)
    result = bench.bench_step(2, 8, "float32", ("l2", "sobolev"), turns=2)
    assert result["overhead_percent"].keys() == {"sobolev"}
    assert result["step_milliseconds"].keys() == {"l2", "sobolev"}
    assert result["metric_percent_of_step"]["sobolev"]["median"] > 0
    assert "sobolev" in bench.step_table("2", result)


def test_a_bad_flag_is_named():
    command = [sys.executable, "-m", "experiments.benchmarks.channel_grad"]
    done = subprocess.run(
        [*command, "--precision=float8", "--batch_sizes=0"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "--precision" in done.stderr and "float32, bfloat16" in done.stderr
