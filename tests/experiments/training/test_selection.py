"""What it costs to judge a value on the seeds that chose it, and that fresh seeds cost nothing."""

import functools
import json
import pathlib

import numpy as np
import pytest

from experiments.training import sweep
from experiments.training.task import Headline

ACCURACY = Headline("accuracy", percent=True)
RESULTS = pathlib.Path(sweep.__file__).parents[1] / "results"


def runs_of(validation, test, first_seed):
    """Runs from arrays (run, seed), the baseline first."""
    return [
        {
            "name": f"a={index}" if index else "baseline",
            "trials": [
                {
                    "seed": first_seed + seed,
                    "best": {"validation_accuracy": v, "test_accuracy": t},
                    "validation_accuracy": v,
                    "test_accuracy": t,
                    "train_accuracy": 1.0,
                }
                for seed, (v, t) in enumerate(zip(*pair, strict=True))
            ],
        }
        for index, pair in enumerate(zip(validation, test, strict=True))
    ]


def reported(correlation, values, seeds, effect, repetitions, rng):
    """Reported differences of what conclusions choose: in the sweep, and on fresh seeds.

    Validation and test of a network have deviation 1 and this correlation; `effect` is the test
    difference of every value, and of its validation difference too.
    """
    old, new = [], []
    for _ in range(repetitions):

        def draw(first_seed):
            both = rng.multivariate_normal(
                [0, 0], [[1, correlation], [correlation, 1]], (values + 1, seeds)
            )
            both[1:] += effect
            return runs_of(both[..., 0], both[..., 1], first_seed)

        _, row = sweep.conclusions(draw(0), ACCURACY, draw(100))
        if row["confirmed"]:  # else the baseline's own value was chosen, and nothing is reported
            old.append(row["test"]["difference"])
            new.append(row["confirmed"]["test"]["difference"])
    return np.array(old), np.array(new)


@pytest.mark.parametrize(
    ("correlation", "values", "effect"),
    [(0.7, 6, 0.0), (0.9, 3, 0.0), (0.0, 6, 0.0), (0.7, 6, 0.3)],
)
def test_fresh_seeds_are_unbiased_where_the_seeds_that_chose_are_not(correlation, values, effect):
    old, new = reported(correlation, values, 8, effect, 250, np.random.default_rng(1))
    error = np.std(old) / np.sqrt(len(old))
    print(f"{np.mean(old):.3f} on the seeds that chose, {np.mean(new):.3f} on fresh ones")
    assert abs(np.mean(new) - effect) < 3.5 * np.std(new) / np.sqrt(len(new))
    if correlation:
        assert np.mean(old) > effect + 5 * error  # what the old procedure reported
    else:  # Where validation tells nothing about test, the choice costs nothing.
        assert abs(np.mean(old) - effect) < 3.5 * error


@functools.cache
def studies():
    return json.loads((RESULTS / "moving_digits_gap.json").read_text())["studies"]


def selection_bias(study, setting, without_effect=True, draws=20_000):
    """How much too good the reported test difference of a setting is on average, in points.

    Seeds are drawn with replacement, the same for all runs, as trials are paired; the value is
    chosen as `conclusions` does.

    Args:
      study: index in the file.
      setting: what was swept.
      without_effect: whether every run is moved to a mean of 0 first, so that all that is reported
        is due to the choice; else the truth is taken to be what was observed.
      draws: of the bootstrap.
    """
    baseline, *others = studies()[study]["summary"]["runs"]
    runs = [baseline, *(run for run in others if sweep.swept(run) == setting)]
    validation, test = (
        np.array([[t["best"][f"{which}_accuracy"] for t in r["trials"]] for r in runs])
        for which in ("validation", "test")
    )
    if without_effect:
        validation -= validation.mean(axis=1, keepdims=True)
        test -= test.mean(axis=1, keepdims=True)
    truth = test.mean(axis=1)
    seeds = test.shape[1]
    drawn = np.random.default_rng(0).integers(0, seeds, (draws, seeds))
    chosen = validation[:, drawn].mean(axis=2).argmax(axis=0)
    found = test[:, drawn].mean(axis=2)
    reported = np.take_along_axis(found, chosen[None], 0)[0] - found[0]
    return 100 * np.mean(reported - (truth[chosen] - truth[0]))


# The numbers of docs/results.md; the bootstrap's own error is 0.02.
@pytest.mark.parametrize(
    ("study", "setting", "without_effect", "bias"),
    [
        (0, "optflow_strength", True, 0.70),
        (1, "optflow_strength", True, 0.72),
        (0, "l2_strength", True, 1.67),
        (0, "l2_strength", False, 0.24),
    ],
)
def test_what_the_choice_adds_to_the_stored_results(study, setting, without_effect, bias):
    assert selection_bias(study, setting, without_effect) == pytest.approx(bias, abs=0.05)
