"""Sweeps, grids, random search and the conclusions drawn from them."""

import dataclasses

import numpy as np
import pytest

from experiments.system.errors import ConfigError
from experiments.training import sweep
from experiments.training.config import Length, OptimizerConfig
from experiments.training.settings import Config, composed, setting, with_settings
from experiments.training.task import Headline

ACCURACY = Headline("accuracy", percent=True)


@dataclasses.dataclass(frozen=True)
class Example(Config):
    weight_decay: float = setting(0.5, "Weight decay.", minimum=0.0, search=(1e-4, 1.0))
    depth: int = setting(8, "Depth.", minimum=1)
    optimizer: OptimizerConfig = composed(OptimizerConfig)
    length: Length = composed(Length)


BASE = Example()


def names(runs):
    return [run.name for run in runs]


def test_sweep_is_the_baseline_and_one_run_for_each_other_value():
    parsed = sweep.parse_sweep("weight_decay:0,1e-1,0.5,0.1", Example)
    assert parsed == ("weight_decay", [0.0, 0.1, 0.5])
    runs = sweep.sweep_runs(BASE, [parsed, ("learning_rate", [1.0])])
    assert [(r.name, r.config.weight_decay, r.config.optimizer.learning_rate) for r in runs] == [
        ("baseline", 0.5, 0.1),
        ("weight_decay=0", 0.0, 0.1),
        ("weight_decay=0.1", 0.1, 0.1),
        ("learning_rate=1", 0.5, 1.0),
    ]


def test_integers_and_choices_are_swept_too():
    assert sweep.parse_sweep("depth:8,14", Example) == ("depth", [8, 14])
    parsed = sweep.parse_sweep("direction:output,input", Example)
    sobolev = with_settings(BASE, {"metric": "sobolev"})
    assert names(sweep.sweep_runs(sobolev, [parsed])) == ["baseline", "direction=input"]
    # Under l2 there is no direction, so the value makes no other run.
    assert names(sweep.sweep_runs(BASE, [parsed])) == ["baseline"]


def test_a_grid_combines_every_value_with_every_other():
    sweeps = [("metric", ["l2", "sobolev"]), ("direction", ["output", "input"])]
    runs = sweep.sweep_runs(BASE, sweeps, grid=True)
    assert names(runs) == [
        "baseline",  # l2 has no direction
        "metric=sobolev,direction=output",
        "metric=sobolev,direction=input",
    ]
    assert runs[2].config.optimizer.metric.direction == "input"


def test_a_value_given_twice_is_one_run_and_close_values_are_two():
    close = ("learning_rate", [1.0000001, 1.0000002])
    runs = sweep.sweep_runs(BASE, [("weight_decay", [0.0]), ("weight_decay", [0.0, 1.0]), close])
    assert names(runs) == [
        *("baseline", "weight_decay=0", "weight_decay=1"),
        *("learning_rate=1.0000001", "learning_rate=1.0000002"),
    ]


@pytest.mark.parametrize(
    "text", ["weight_decay", "width:1,2", "weight_decay:a", "weight_decay:", "depth:1.5"]
)
def test_bad_sweep(text):
    with pytest.raises(ConfigError, match="^sweep: got .*accepted"):
        sweep.parse_sweep(text, Example)


@pytest.mark.parametrize("value", [float("nan"), -1.0])
def test_a_value_that_the_setting_refuses_names_sweep(value):
    with pytest.raises(ConfigError, match="^sweep: got .*weight_decay: a finite number >= 0"):
        sweep.sweep_runs(BASE, [("weight_decay", [value])])


def test_random_search_is_log_uniform_within_its_ranges_and_repeats():
    runs = sweep.random_runs(BASE, {"weight_decay": (1e-4, 1e0)}, 400, seed=3)
    assert runs[0] == sweep.Run("baseline", BASE) and len(runs) == 401
    drawn = runs[1:]
    logs = np.log10([r.config.weight_decay for r in drawn])
    assert logs.min() >= -4.01 and logs.max() <= 0.01
    # Each quarter of the logarithmic range gets a quarter of the draws, within five deviations.
    counts = np.histogram(logs, bins=[-4.01, -3, -2, -1, 0.01])[0]
    assert np.all(np.abs(counts - 100) < 5 * np.sqrt(75))
    again = sweep.random_runs(BASE, {"weight_decay": (1e-4, 1e0)}, 400, seed=3)
    assert runs == again
    assert {r.config.optimizer.learning_rate for r in runs} == {0.1}


def test_searched_are_the_settings_in_use_and_rates_relative_to_the_baseline():
    ranges = sweep.searched(BASE)
    assert ranges.keys() == {"weight_decay", "learning_rate"}
    assert ranges["weight_decay"] == (1e-4, 1.0)
    assert ranges["learning_rate"] == pytest.approx((0.01, 1.0))
    assert "lam" in sweep.searched(with_settings(BASE, {"metric": "sobolev"}))


@pytest.mark.parametrize("count", [0, 10**8])
def test_a_number_of_runs_that_is_not_accepted(count):
    with pytest.raises(ConfigError, match="^random_search: got"):
        sweep.random_runs(BASE, {}, count, seed=0)


def run(name, validation, test, train):
    trials = [
        {
            "seed": seed,
            "best": {"validation_accuracy": v, "test_accuracy": t},
            "train_accuracy": a,
            "validation_accuracy": v - 0.1,
        }
        for seed, (v, t, a) in enumerate(zip(validation, test, train, strict=True))
    ]
    return {"name": name, "trials": trials}


def test_conclusions_choose_by_validation_and_report_test():
    runs = [
        run("baseline", [0.5, 0.6], [0.50, 0.52], [1.0, 1.0]),
        run("a=1", [0.7, 0.7], [0.53, 0.57], [0.9, 0.9]),
        run("a=2", [0.6, 0.6], [0.99, 0.99], [0.9, 0.9]),  # Better on test, but not chosen.
        run("b=1", [0.1, 0.2], [0.90, 0.90], [0.9, 0.9]),  # Worse than none at all.
    ]
    none, a, b = sweep.conclusions(runs, ACCURACY)
    assert (none["chosen"], a["chosen"], b["chosen"]) == ("baseline", "a=1", "baseline")
    assert a["test"]["mean"] == pytest.approx(0.55)
    assert a["test"]["difference"] == pytest.approx(0.04)
    # Gaps: baseline 1.0 - (0.4, 0.5), a=1 0.9 - 0.6.
    assert none["gap"]["mean"] == pytest.approx(0.55)
    assert a["gap"]["difference"] == pytest.approx(-0.25)
    low, high = a["gap"]["interval"]
    # Differences -0.3 and -0.2: mean -0.25, standard error 0.05, t(0.975, 1) = 12.7062.
    assert (low, high) == (pytest.approx(-0.25 - 0.63531), pytest.approx(-0.25 + 0.63531))
    assert "+4.00" in sweep.conclusions_table([none, a, b], ACCURACY)


def test_a_run_that_shares_no_seed_with_the_baseline_has_no_difference():
    baseline, other = run("baseline", [0.5], [0.5], [0.5]), run("a=1", [0.6], [0.6], [0.6])
    other["trials"][0]["seed"] = 1
    rows = sweep.conclusions([baseline, other], ACCURACY)
    assert rows[1]["chosen"] == "a=1" and rows[1]["test"]["difference"] is None
    assert rows[1]["test"]["mean"] == 0.6
    line = sweep.conclusions_table(rows, ACCURACY).splitlines()[-1]
    assert line.split() == ["a", "a=1", "60.00", "-", "10.00", "-"]


def test_a_failed_trial_is_left_out():
    failed = run("a=1", [0.5], [0.5], [0.5])
    failed["trials"].append({"seed": 1, "error": "nan", "test_accuracy": None})
    assert sweep.values(failed, "test", ACCURACY) == [0.5]


def test_where_lower_is_better_the_least_is_chosen():
    mse = Headline("mse", higher_is_better=False)
    rows = [
        {
            "name": name,
            "trials": [
                {
                    "seed": 0,
                    "best": {"validation_mse": value, "test_mse": value},
                    "train_mse": value,
                    "validation_mse": value,
                }
            ],
        }
        for name, value in (("baseline", 0.3), ("a=1", 0.1), ("a=2", 0.9))
    ]
    assert sweep.conclusions(rows, mse)[1]["chosen"] == "a=1"
