"""Every bad setting is one error that names the flag and what is accepted."""

import pytest

from experiments.system.errors import UserError
from experiments.training.config import TrainConfig

GOOD = dict(dataset="digits", model="resnet8")


@pytest.mark.parametrize(
    ("flag", "settings"),
    [
        ("--metric", dict(metric="sobolef")),
        ("--lam", dict(metric="sobolev", lam=-1.0)),
        ("--lam", dict(metric="sobolev", lam=0.0)),
        ("--lam", dict(metric="reweighted_l2", form="equation", lam=0.0)),
        ("--lam", dict(metric="reweighted_l2", lam=-0.5)),
        ("--lam", dict(metric="sobolev", lam=float("nan"))),
        ("--sigma", dict(metric="laplacian", sigma=-1.0)),
        ("--l2_weight", dict(l2_weight=-1.0)),
        ("--form", dict(form="paper")),
        ("--discretization", dict(discretization="euler")),
        ("--direction", dict(direction="sideways")),
        ("--layers", dict(layers="dense")),
        ("--optimizer", dict(optimizer="lion")),
        ("--schedule", dict(schedule="linear")),
        ("--precision", dict(precision="int8")),
        ("--learning_rate", dict(learning_rate=0.0)),
        ("--momentum", dict(momentum=1.0)),
        ("--weight_decay", dict(weight_decay=-1e-4)),
        ("--batch_size", dict(batch_size=0)),
        ("--epochs", dict(epochs=0.0)),
        ("--evaluate_every", dict(evaluate_every=-1.0)),
    ],
)
def test_bad_setting(flag, settings):
    with pytest.raises(UserError, match=f"^{flag}: got .*accepted"):
        TrainConfig(**GOOD, **settings)


def test_lam_zero_is_plain_sgd_in_the_code_form():
    assert TrainConfig(**GOOD, metric="reweighted_l2", lam=0.0).lam == 0.0


def test_batch_larger_than_the_data():
    config = TrainConfig(**GOOD, batch_size=100)
    with pytest.raises(UserError, match=r"^--batch_size: got 100, more than the 99 training"):
        config.steps_per_epoch(99)


def test_fractional_epochs():
    config = TrainConfig(**GOOD, batch_size=10, epochs=1.5, evaluate_every=0.25)
    assert config.steps_per_epoch(105) == 10
    assert config.total_steps(105) == 15
    assert config.steps_between_evaluations(105) == 3
    assert TrainConfig(**GOOD, batch_size=10, epochs=1e-9).total_steps(105) == 1
