"""Statistics over trials, against hand-computed values."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats

from experiments.training import statistics
from experiments.training.task import Headline

ACCURACY = Headline("accuracy", percent=True)


def test_describe_by_hand():
    assert statistics.describe([0.5, 0.7]) == {
        "mean": pytest.approx(0.6),
        "std": pytest.approx(math.sqrt(0.02)),
        "n": 2,
    }


def test_describe_leaves_out_failed_trials_and_has_no_deviation_of_one_value():
    assert statistics.describe([0.5, None, math.nan]) == {"mean": 0.5, "std": None, "n": 1}
    assert statistics.describe([]) == {"mean": None, "std": None, "n": 0}


def test_paired_difference_and_interval_by_hand():
    # Differences 0.01, 0.03, 0.05: mean 0.03, deviation 0.02, t(0.975, 2) = 4.30265.
    result = statistics.paired({0: 0.80, 1: 0.80, 2: 0.80}, {0: 0.81, 1: 0.83, 2: 0.85, 9: 0.1})
    half_width = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert result["difference"] == pytest.approx(0.03)
    np.testing.assert_allclose(result["interval"], [0.03 - half_width, 0.03 + half_width])
    assert result["n"] == 3
    # The error fell from 0.20 to 0.17.
    assert result["error_reduced_percent"] == pytest.approx(15.0)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        before, noise = rng.normal(0.8, 0.05, 6), rng.normal(0.01, 0.02, 6)
        low, high = statistics.paired(dict(enumerate(before)), dict(enumerate(before + noise)))[
            "interval"
        ]
        hits += low <= 0.01 <= high
    # 95 % of 400, within four binomial deviations.
    assert abs(hits - 380) <= 4 * math.sqrt(400 * 0.95 * 0.05)


def test_one_pair_has_no_interval_and_equal_differences_have_a_point():
    assert statistics.paired({0: 0.5}, {0: 0.6})["interval"] is None
    assert statistics.paired({0: 0.5, 1: 0.25}, {0: 0.75, 1: 0.5})["interval"] == [0.25, 0.25]
    assert statistics.paired({0: 0.5}, {1: 0.6})["n"] == 0


def test_paper_error_reduction_of_table_2():
    # SGD 86.54, with the Sobolev metric 87.99: the paper prints 10.8 %.
    reduced = statistics.paired({0: 0.8654}, {0: 0.8799})["error_reduced_percent"]
    assert round(reduced, 1) == 10.8


def test_compare_and_table():
    def run(name, values):
        trials = [{"seed": s, "test_accuracy": v} for s, v in enumerate(values)]
        return {"name": name, "trials": trials, **statistics.describe(values)}

    runs = [run("l2", [0.5, 0.6]), run("sobolev", [0.6, 0.8])]
    (row,) = statistics.compare(runs, ACCURACY)
    assert (row["run"], row["baseline"], row["n"]) == ("sobolev", "l2", 2)
    assert row["difference"] == pytest.approx(0.15)
    expected = scipy.stats.t.interval(0.95, 1, loc=0.15, scale=np.std([0.1, 0.2], ddof=1) / 2**0.5)
    np.testing.assert_allclose(row["interval"], expected)

    text = statistics.table(
        {
            "dataset": "digits",
            "runs": runs,
            "comparison": [row],
            "headline": dataclasses.asdict(ACCURACY),
        }
    )
    assert "55.00" in text and "70.00" in text and "+15.00" in text and "+33.3 %" in text


def test_differences_equal_but_for_rounding_have_no_spread():
    # 0.2 - 0.1 and 0.3 - 0.2 differ in the last bit.
    low, high = statistics.paired({0: 0.1, 1: 0.2}, {0: 0.2, 1: 0.3})["interval"]
    assert low == pytest.approx(0.1) and high == pytest.approx(0.1)


def test_where_lower_is_better_the_error_is_the_number_itself():
    distance = Headline("frechet_distance", higher_is_better=False)
    result = statistics.paired({0: 50.0, 1: 30.0}, {0: 40.0, 1: 32.0}, headline=distance)
    assert result["difference"] == pytest.approx(-4.0)
    assert result["error_reduced_percent"] == pytest.approx(10.0)  # from 40 to 36 on average


def test_half_an_interval_by_hand():
    # Values 1, 2, 3: deviation 1, standard error 1 / sqrt 3, t(0.975, 2) = 4.30265.
    assert statistics.half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.302652729911275 / 3**0.5)
    assert statistics.half_interval([1.0]) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_an_interval_of_spreads_ends_at_1_where_pitman_s_test_is_at_its_edge(seed):
    """Pitman: spreads are equal where the sums and the differences of pairs do not correlate."""
    rng = np.random.default_rng(seed)
    before = rng.normal(size=7)
    after = 0.5 * before + 2 * rng.normal(size=7)
    p = scipy.stats.pearsonr(before + after, after - before).pvalue
    values = dict(enumerate(before)), dict(enumerate(after))
    found = statistics.spread_ratio(*values, confidence=1 - p)
    assert found["ratio"] == pytest.approx(after.std() / before.std())
    assert min(abs(end - 1) for end in found["interval"]) < 1e-9
    wider = statistics.spread_ratio(*values, confidence=1 - p / 2)["interval"]
    assert wider[0] < 1 < wider[1]


def test_spreads_need_three_pairs_that_vary():
    nothing = {"ratio": None, "interval": None}
    assert statistics.spread_ratio({0: 1.0, 1: 2.0, 5: 0.0}, {0: 1.0, 1: 3.0}) == nothing
    assert (
        statistics.spread_ratio(dict.fromkeys(range(3), 1.0), {0: 1.0, 1: 3.0, 2: 4.0}) == nothing
    )
    doubled = statistics.spread_ratio({0: 1.0, 1: 2.0, 2: 4.0}, {0: 2.0, 1: 4.0, 2: 8.0})
    assert doubled["ratio"] == pytest.approx(2.0)  # The pairs lie on a line.
    assert doubled["interval"] == pytest.approx([2.0, 2.0], abs=1e-6)
