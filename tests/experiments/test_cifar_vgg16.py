"""The VGG-16 command: its network, its presets, one short run."""

import jax
import pytest

from experiments import data
from experiments.cifar_vgg16 import EXPERIMENT, VggConfig, build
from experiments.cli.flags import Derived
from experiments.system.errors import UserError
from experiments.training.settings import with_settings


def test_the_papers_network_has_fifteen_million_parameters():
    task, _ = build(VggConfig(), data.load("digits"))
    shapes = jax.eval_shape(task.init, jax.random.key(0)).params
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == pytest.approx(14.7e6, rel=0.005)


def test_the_paper_preset_is_section_4():
    paper = EXPERIMENT.presets["paper"]
    rate = paper["learning_rate"]
    assert isinstance(rate, Derived)
    assert [rate.value(None, {"optimizer": o}) for o in ("sgd", "adam")] == [0.01, 0.01]
    config = VggConfig()
    assert (config.optimizer.momentum, config.length.batch_size) == (0.9, 128)
    assert (config.optimizer.decay_epochs, config.optimizer.decay_factor) == (40.0, 10.0)


def test_a_short_run(run_main, tmp_path):
    summary = run_main(
        "cifar_vgg16", "--dataset=digits", "--narrowing=64", "--epochs=0.05", "--metric=sobolev",
        f"--workdir={tmp_path}/w",
    )  # fmt: skip
    (run,) = summary["runs"]
    assert run["n"] == 1 and summary["model"] == "vgg16_by_64"
    assert (run["settings"]["weight_decay"], run["settings"]["learning_rate"]) == (5e-4, 0.01)


def test_weight_decay_is_that_of_the_optimizer():
    decay = EXPERIMENT.presets["paper"]["weight_decay"]
    values = [decay.value(None, {"optimizer": o}) for o in ("sgd", "adam", "adamw", "muon")]
    assert values == [5e-4, 5e-4, 0.05, 0.05]


def test_a_narrowing_that_does_not_divide(run_main, tmp_path):
    assert with_settings(VggConfig(), {"narrowing": 2}).model == "vgg16_by_2"
    with pytest.raises(UserError, match="narrowing: got 3; accepted: 1, 2, 4"):
        run_main("cifar_vgg16", "--dataset=digits", "--narrowing=3", f"--workdir={tmp_path}/w")
