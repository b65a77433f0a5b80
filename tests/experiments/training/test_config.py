"""Every bad setting is one error that names the field and what is accepted; records say what is
used and nothing else."""

import dataclasses

import pytest

from experiments.system.errors import ConfigError
from experiments.training.config import Length, MetricConfig, OptimizerConfig
from experiments.training.settings import (
    Config,
    composed,
    get,
    leaves,
    record,
    setting,
    with_settings,
)


@dataclasses.dataclass(frozen=True)
class Example(Config):
    width: int = setting(3, "Width.", minimum=1)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)


@dataclasses.dataclass(frozen=True)
class Two(Config):
    generator: OptimizerConfig = composed(OptimizerConfig, prefix="generator_")
    discriminator: OptimizerConfig = composed(
        OptimizerConfig, prefix="discriminator_", without=("momentum",)
    )


@pytest.mark.parametrize(
    ("make", "field", "settings"),
    [
        (MetricConfig, "metric", dict(name="sobolef")),
        (MetricConfig, "lam", dict(name="sobolev", lam=-1.0)),
        (MetricConfig, "lam", dict(name="sobolev", lam=0.0)),
        (MetricConfig, "lam", dict(name="reweighted_l2", form="equation", lam=0.0)),
        (MetricConfig, "lam", dict(name="reweighted_l2", lam=-1.0)),
        (MetricConfig, "lam", dict(name="sobolev", lam=float("nan"))),
        (MetricConfig, "sigma", dict(name="laplacian", sigma=-1.0)),
        (MetricConfig, "l2_weight", dict(name="sobolev", l2_weight=-1.0)),
        (MetricConfig, "form", dict(name="reweighted_l2", form="paper")),
        (MetricConfig, "discretization", dict(name="sobolev", discretization="euler")),
        (MetricConfig, "direction", dict(name="sobolev", direction="sideways")),
        (MetricConfig, "layers", dict(name="sobolev", layers="dense")),
        (OptimizerConfig, "optimizer", dict(name="lion")),
        (OptimizerConfig, "schedule", dict(schedule="wavy")),
        (OptimizerConfig, "learning_rate", dict(learning_rate=0.0)),
        (OptimizerConfig, "momentum", dict(momentum=1.0)),
        (Length, "batch_size", dict(batch_size=0)),
        (Length, "epochs", dict(epochs=0.0)),
        (Length, "epochs", dict(epochs=float("inf"))),
        (Length, "evaluate_every", dict(evaluate_every=-1.0)),
    ],
)
def test_bad_setting(make, field, settings):
    with pytest.raises(ConfigError, match=f"^{field}: got .*; accepted: ") as caught:
        make(**settings)
    assert caught.value.field == field


def test_lam_zero_is_plain_sgd_in_the_code_form():
    assert MetricConfig("reweighted_l2", lam=0.0).lam == 0.0


def test_batch_larger_than_the_data():
    with pytest.raises(ConfigError, match=r"^batch_size: got 100; accepted: 1 to 99"):
        Length(batch_size=100).steps_per_epoch(99)


def test_fractional_epochs():
    length = Length(batch_size=10, epochs=1.5, evaluate_every=0.25)
    assert length.steps_per_epoch(105) == 10
    assert length.steps(105) == 15
    assert length.steps_between_evaluations(105) == 3
    assert Length(batch_size=10, epochs=1e-9).steps(105) == 1


def test_lengths_beyond_what_the_device_counts():
    with pytest.raises(ConfigError, match=r"^epochs: got 1000000000000.0; accepted: at most"):
        Length(batch_size=10, epochs=1e12).steps(100)
    assert Length(batch_size=10, evaluate_every=1e12).steps_between_evaluations(100) == 2**31 - 1


def test_settings_are_found_and_replaced_by_the_name_of_their_flag():
    config = with_settings(Example(), {"width": 5, "metric": "sobolev", "lam": 2.0, "epochs": 3.0})
    assert (config.width, config.length.epochs) == (5, 3.0)
    assert config.optimizer.metric == MetricConfig("sobolev", lam=2.0)
    assert get(config, "lam") == 2.0 and get(Example(), "metric") == "l2"


def test_changes_are_checked_together():
    base = with_settings(Example(), {"metric": "reweighted_l2", "lam": 0.0})
    both = with_settings(base, {"metric": "sobolev", "lam": 1.0})  # lam 0 is not Sobolev's
    assert both.optimizer.metric.name == "sobolev"
    with pytest.raises(ConfigError, match="^lam: got 0.0"):
        with_settings(base, {"metric": "sobolev"})


def test_two_optimizers_have_flags_of_their_own():
    flags = {leaf.flag: leaf.has_flag for leaf in leaves(Two)}
    assert flags["generator_lam"] and flags["discriminator_lam"]
    assert flags["generator_momentum"] and not flags["discriminator_momentum"]
    config = with_settings(Two(), {"generator_metric": "sobolev"})
    assert config.generator.metric.name == "sobolev" and config.discriminator.metric.name == "l2"


def test_recorded_is_what_is_used():
    sgd = record(Example())
    assert sgd["metric"] == "l2" and "lam" not in sgd and "direction" not in sgd
    assert {"momentum", "decay_epochs", "width", "batch_size"} <= set(sgd)
    assert "momentum_max" not in sgd  # The momentum does not rise.
    adam = record(
        with_settings(
            Example(), {"optimizer": "adam", "schedule": "cosine", "metric": "sobolev", "lam": 3.0}
        )
    )
    assert (adam["lam"], adam["direction"]) == (3.0, "output")
    assert not {"momentum", "decay_epochs", "sigma", "form"} & set(adam)


def test_a_record_of_other_kinds_of_configurations():
    @dataclasses.dataclass
    class Plain:
        rate: float = 0.5

    assert record(Plain()) == {"rate": 0.5} and record({"rate": 1}) == {"rate": 1}
