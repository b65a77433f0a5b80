"""The benchmark of the 3D ConvNet times the command's training step; speed is not tested."""

import json

import flax.linen as nn
import jax.numpy as jnp
import pytest

from experiments import ucf101_convnet3d
from experiments.benchmarks import convnet3d as bench
from experiments.cli import main as command
from experiments.models import convnet3d
from experiments.models.convnet3d import narrow


@pytest.mark.parametrize("name", bench.SIZES)
def test_the_networks_are_those_of_the_training_command(name):
    network, size, batch = bench.SIZES[name]
    clips = bench.random_clips(size, batch)
    assert clips.example_shape == (16, size, size, 3) and len(clips.train) == batch
    trained = ucf101_convnet3d.network(ucf101_convnet3d.VideoConfig(), clips)
    timed = bench.make_task(network, clips, 1.0).model
    assert timed == trained


def test_the_penalty_is_the_regularizer_of_the_first_layer(monkeypatch):
    clips = bench.random_clips(16, 2)
    assert bench.make_task(narrow, clips, 0.0).penalty is None
    monkeypatch.setattr(bench.optflow_jax, "regularizer", lambda kernel: 2 * kernel)
    assert bench.make_task(narrow, clips, 3.0).penalty({"Conv_0": {"kernel": 5.0}}) == 3 * 2 * 5.0


class OneConvolution(nn.Module):
    """In place of the 3D ConvNet, which takes long to compile and is tested elsewhere."""

    num_classes: int

    @nn.compact
    def __call__(self, clips, train):
        x = convnet3d.Conv(2, (2, 3, 3), jnp.float32)(clips)
        return nn.Dense(self.num_classes)(jnp.mean(x, axis=(1, 2, 3)))


# The regularizer is tested elsewhere too; it takes seconds to compile.
def squares(kernel):
    return jnp.sum(kernel**2)


def test_the_command_measures_steps_with_and_without(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench.optflow_jax, "regularizer", squares)
    monkeypatch.setattr(bench, "SIZES", {"tiny": (OneConvolution, 8, 2)})
    monkeypatch.setattr(bench, "MIN_TURNS", 6)  # below six there is no interval of 95 %
    monkeypatch.setattr(bench, "TURNS_ALONE", 2)
    out = tmp_path / "results.json"
    results = command.call(
        bench.main, bench.define, "--sizes=tiny", "--seconds=0.001", f"--out={out}"
    )
    result = results["sizes"]["tiny"]
    assert (result["filters"], tuple(result["filter_shape"])) == (2, (2, 3, 3))
    assert result["turns"] >= 6 and len(result["overhead_percent"]["interval"]) == 2
    assert result["step_milliseconds"].keys() == {"without", "with"}
    assert result["optflow_percent_of_step"]["median"] > 0
    assert json.loads(out.read_text())["sizes"].keys() == {"tiny"}
    assert "tiny, 2 filters: step " in capsys.readouterr().out


def test_clips_are_the_same_in_every_run():
    first, again = (bench.random_clips(8, 2).train.examples for _ in range(2))
    assert jnp.array_equal(first, again)
