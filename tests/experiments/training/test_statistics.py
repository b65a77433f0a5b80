"""Statistics over trials, against hand-computed values."""

import dataclasses
import itertools
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


@pytest.mark.parametrize("differences", [[0.25], [0.25, 0.25], [-0.5] * 3, [0.0] * 5])
def test_one_pair_and_pairs_without_spread_have_no_interval(differences):
    """A t interval measures with the spread that it sees; an interval of width 0 is a claim."""
    before = {seed: 0.25 * seed for seed in range(len(differences))}
    after = {seed: before[seed] + d for seed, d in enumerate(differences)}
    result = statistics.paired(before, after)
    assert result["interval"] is None and result["difference"] == differences[0]
    assert statistics.equivalence(before, after, margin=1.0)["equivalent"] is None


def test_pairs_without_a_number_are_left_out():
    before = {0: 0.80, 1: 0.80, 2: 0.80, 3: math.nan, 4: 0.1, 5: math.inf, 6: 0.5}
    after = {0: 0.81, 1: 0.83, 2: 0.85, 3: 0.9, 4: math.nan, 5: 0.2, 6: None}
    alone = [{seed: values[seed] for seed in range(3)} for values in (before, after)]
    for compare in (statistics.paired, statistics.p_values, statistics.spread_ratio):
        assert compare(before, after) == compare(*alone)
    assert statistics.paired(before, after)["n"] == 3
    assert statistics.equivalence(before, after, 0.1) == statistics.equivalence(*alone, 0.1)
    nothing = statistics.paired({0: math.nan}, {0: 0.5})
    assert nothing["difference"] is None and nothing["n"] == 0
    assert statistics.p_values({0: math.nan}, {0: 0.5}) == {"t": None, "wilcoxon": None}
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


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
def test_differences_equal_but_for_rounding_have_no_spread(scale):
    # 0.2 - 0.1 and 0.3 - 0.2 differ in the last bit.
    before, after = ({seed: scale * x for seed, x in enumerate(v)} for v in ([1, 2], [2, 3]))
    before, after = ({k: 0.1 * x for k, x in values.items()} for values in (before, after))
    result = statistics.paired(before, after)
    assert result["interval"] is None and result["difference"] == pytest.approx(0.1 * scale)
    # A spread that is there is seen at every scale.
    after[1] += 0.001 * scale
    assert statistics.paired(before, after)["interval"] is not None


def enumerated(differences):
    """The two-sided p-value of Wilcoxon's test from all assignments of signs."""
    differences = [d for d in differences if d]
    ranks = scipy.stats.rankdata(np.abs(differences))
    signs = np.array(list(itertools.product([-1, 1], repeat=len(ranks))))
    sums = np.abs(signs @ ranks)
    return np.mean(sums >= abs(np.sign(differences) @ ranks) - 1e-9)


@pytest.mark.parametrize(
    "differences",
    [
        [1, 1, -2, 3, 0],
        [1] * 8 + [-1] * 2,
        [2, 2, 2, -1, 3, 3, -3, 5, 5, 0, 0, 1],
        [1, 2, 3, -4, 5, 6, 7, -8, 9, 10, 11, 12, 13, 14, 15],
        [4, -4, 4, 4, 7, 7, -2, 2, 2, 9, 9, 9, 1, -1, 3, 3],
    ],
)
def test_wilcoxon_is_exact_with_ties_and_zeros(differences):
    before = {seed: 0.5 + 0.01 * seed for seed in range(len(differences))}
    # Shares of 1,000 examples: ties are not equal to the bit.
    after = {seed: before[seed] + d / 1000 for seed, d in enumerate(differences)}
    found = statistics.p_values(before, after)["wilcoxon"]
    assert found == pytest.approx(enumerated(differences), rel=1e-9)


def test_wilcoxon_without_ties_is_scipy_s_exact_test():
    rng = np.random.default_rng(0)
    for n in (6, 20, 50):
        values = rng.normal(0.3, 1, n)
        found = statistics.p_values(dict.fromkeys(range(n), 0.0), dict(enumerate(values)))
        expected = scipy.stats.wilcoxon(values, method="exact").pvalue
        assert found["wilcoxon"] == pytest.approx(expected, rel=1e-9)


def test_equivalence_by_hand():
    # Differences 0.01, 0.03, 0.05: mean 0.03, standard error 0.02 / sqrt 3, t(0.95, 2) = 2.91999.
    before, after = dict.fromkeys(range(3), 0.8), {0: 0.81, 1: 0.83, 2: 0.85}
    error = 0.02 / math.sqrt(3)
    low, high = 0.03 - 2.919985580353726 * error, 0.03 + 2.919985580353726 * error
    found = statistics.equivalence(before, after, margin=0.05)
    np.testing.assert_allclose(found["interval"], [low, high])
    # The nearer margin decides: t = (0.05 - 0.03) / error, with 2 degrees of freedom.
    assert found["p"] == pytest.approx(scipy.stats.t.sf(0.02 / error, 2))
    assert found["equivalent"] is False
    # It turns where the margin passes the end of the 90 % interval, on either side.
    for first, second in ((before, after), (after, before)):
        for margin, expected in ((high - 1e-6, False), (high + 1e-6, True)):
            assert statistics.equivalence(first, second, margin)["equivalent"] is expected


def test_equivalence_errs_as_often_as_it_says():
    """At a true difference of exactly the margin, 5 % are called equivalent."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        after = dict(enumerate(rng.normal(1.0, 0.3, 8)))
        wrong += statistics.equivalence(dict.fromkeys(range(8), 0.0), after, 1.0)["equivalent"]
    assert abs(wrong - 50) <= 4 * math.sqrt(1000 * 0.05 * 0.95)


@pytest.mark.parametrize("margin", [0.0, -0.1, math.nan, math.inf])
def test_a_margin_that_is_none(margin):
    with pytest.raises(ValueError, match="^margin: got"):
        statistics.equivalence({0: 0.1, 1: 0.2}, {0: 0.1, 1: 0.3}, margin)


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
