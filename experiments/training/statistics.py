"""Statistics over trials: means, paired differences with intervals, the paper's error reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.training.task import Headline

# When the number of a trial was taken; every table and figure says which.
LAST, BEST = "at the last evaluation", "at the best validation step"
_ROUNDING = 1e-12  # of the largest value: differences that are closer are ties
_MOST_EXACT = 200  # pairs


def describe(values: Sequence[float]) -> dict[str, Any]:
    """Mean, sample standard deviation (None for one value) and number of the finite values."""
    finite = [v for v in values if v is not None and math.isfinite(v)]
    return {
        "mean": float(np.mean(finite)) if finite else None,
        "std": float(np.std(finite, ddof=1)) if len(finite) > 1 else None,
        "n": len(finite),
    }


def half_interval(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half the width of Student's t interval of a mean; 0 for one value."""
    if len(values) < 2:
        return 0.0
    from scipy import stats  # It takes a third of a command's start, and one trial needs none.

    quantile = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(quantile * np.std(values, ddof=1) / math.sqrt(len(values)))


def paired(
    baseline: dict[int, float],
    other: dict[int, float],
    confidence: float = 0.95,
    headline: Headline | None = None,
) -> dict[str, Any]:
    """Difference other - baseline over the seeds that both have.

    Args:
      baseline: the headline number by seed.
      other: the same of the other run.
      confidence: of the interval.
      headline: says what the error is: 1 - value where higher is better (a share in [0, 1]), and
        the value itself where lower is better. Higher is better by default.

    Returns:
      "difference" (mean), "interval" (Student's t on the paired differences; None below two pairs
      and where the differences have no spread, which says nothing about that of other seeds), "n"
      (pairs of finite numbers; a pair with another is left out), and "error_reduced_percent", the
      share of the baseline's mean error that the other removes (Channel-directed gradients, table
      2).
    """
    before, after, differences = _pairs(baseline, other)
    if not len(differences):
        return {"difference": None, "interval": None, "n": 0, "error_reduced_percent": None}
    error = mean_error(before, headline)
    gain = before.mean() - after.mean()
    if headline is None or headline.higher_is_better:
        gain = -gain
    return {
        "difference": float((after - before).mean()),
        "interval": _interval(differences, confidence),
        "n": len(differences),
        "error_reduced_percent": float(100 * gain / error) if error > 0 else None,
    }


def mean_error(values: Sequence[float], headline: Headline | None = None) -> float:
    """What is left to gain: 1 - mean where higher is better (a share), and the mean where lower."""
    mean = float(np.mean(values))
    return 1 - mean if headline is None or headline.higher_is_better else mean


def equivalence(
    baseline: dict[int, float], other: dict[int, float], margin: float, alpha: float = 0.05
) -> dict[str, Any]:
    """Whether a paired difference is shown to be smaller than a margin: two one-sided t tests.

    A difference that is not significant may still be large; this test is significant where a
    difference of -margin or less, and one of margin or more, are both excluded. That is where the
    interval of confidence 1 - 2 alpha lies between them.

    Args:
      baseline: the headline number by seed.
      other: the same of the other run.
      margin: the least difference that would matter, in the unit of the numbers.
      alpha: error rate of the test.

    Returns:
      "margin", "interval" (of confidence 1 - 2 alpha), "p" (the larger of the two one-sided
      p-values) and "equivalent" (p < alpha). Below two pairs, and where the differences have no
      spread, the last three are None.

    Raises:
      ValueError: margin is not a positive number, or alpha is not between 0 and 0.5.

    Source:
      D. J. Schuirmann, "A comparison of the two one-sided tests procedure and the power approach
      for assessing the equivalence of average bioavailability", 1987.

    Example:
      >>> seeds = range(3)
      >>> same, close = dict.fromkeys(seeds, 0.5), dict(zip(seeds, [0.50, 0.51, 0.49]))
      >>> equivalence(same, close, margin=0.05)["equivalent"]
      True
    """
    if not 0 < margin < math.inf:
        raise ValueError(f"margin: got {margin}; accepted: a positive number")
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha: got {alpha}; accepted: a number between 0 and 0.5")
    _, _, differences = _pairs(baseline, other)
    interval = _interval(differences, 1 - 2 * alpha)
    if interval is None:
        return {"margin": margin, "interval": None, "p": None, "equivalent": None}
    from scipy import stats

    above = stats.ttest_1samp(differences, -margin, alternative="greater").pvalue
    below = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    p = float(max(above, below))
    return {"margin": margin, "interval": interval, "p": p, "equivalent": p < alpha}


def p_values(baseline: dict[int, float], other: dict[int, float]) -> dict[str, float | None]:
    """How often chance alone gives a paired difference as large as this one, by two tests.

    Args:
      baseline: the headline number by seed.
      other: the same of the other run.

    Returns:
      "t", of Student's paired t test (None where all differences are the same number, and below
      two pairs), and "wilcoxon", of the signed-rank test (1 where no pair differs, None without
      pairs). Both are two-sided. Wilcoxon's counts all assignments of signs to the ranks, so it is
      exact where differences are tied; beyond 200 pairs that differ it is the normal approximation.

    Example:
      >>> p_values({0: 0.5, 1: 0.5, 2: 0.5}, {0: 0.6, 1: 0.8, 2: 0.7})["wilcoxon"]
      0.25
    """
    from scipy import stats

    _, _, differences = _pairs(baseline, other)
    t = None
    if len(differences) > 1 and np.ptp(differences) > 0:
        t = float(stats.ttest_1samp(differences, 0.0).pvalue)
    return {"t": t, "wilcoxon": _wilcoxon(differences) if len(differences) else None}


def _pairs(
    baseline: dict[int, float], other: dict[int, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both numbers and their difference, of the seeds for which both are finite.

    Shares that differ by the same number of examples are ties, but for the last bits: differences
    whose sizes are closer than rounding get one size.
    """
    both = [(baseline[s], other[s]) for s in sorted(set(baseline) & set(other))]
    both = [pair for pair in both if all(x is not None and math.isfinite(x) for x in pair)]
    before, after = np.array(both, float).reshape(-1, 2).T
    differences = after - before
    sizes = np.abs(differences)
    rounding = _ROUNDING * np.max(np.abs([before, after]), initial=0.0)
    last = 0.0
    for index in np.argsort(sizes):
        if sizes[index] - last > rounding:
            last = sizes[index]
        differences[index] = math.copysign(last, differences[index])
    return before, after, differences


def _interval(differences: np.ndarray, confidence: float) -> list[float] | None:
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    middle, half = float(differences.mean()), half_interval(differences, confidence)
    return [middle - half, middle + half]


def _wilcoxon(differences: np.ndarray) -> float:
    """The two-sided p-value of the signed-rank test; pairs that do not differ are left out."""
    from scipy import stats

    differing = differences[differences != 0]
    if not len(differing):
        return 1.0
    if len(differing) > _MOST_EXACT:
        return float(stats.wilcoxon(differing).pvalue)
    # Twice the ranks are integers, also of ties. Count the sign assignments by their sum of ranks.
    ranks = np.rint(2 * stats.rankdata(np.abs(differing))).astype(int)
    chance = np.zeros(ranks.sum() + 1)
    chance[0] = 1.0
    for rank in ranks:
        shifted = np.concatenate([np.zeros(rank), chance[:-rank]])
        chance = (chance + shifted) / 2
    positive = ranks[differing > 0].sum()
    tail = min(chance[: positive + 1].sum(), chance[positive:].sum())
    return min(1.0, float(2 * tail))


def spread_ratio(
    baseline: dict[int, float], other: dict[int, float], confidence: float = 0.95
) -> dict[str, Any]:
    """How much more the other's values are spread, over the seeds that both have.

    With the standard deviations s and s' of n pairs, their correlation r, and the quantile t of
    Student's distribution with n - 2 degrees of freedom, the interval of the ratio R = s' / s is

        R^2 (K - sqrt(K^2 - 1)) <= ratio^2 <= R^2 (K + sqrt(K^2 - 1)),
        K = 1 + 2 (1 - r^2) t^2 / (n - 2),

    which is exact for pairs from a normal distribution.

    Args:
      baseline: a number by seed.
      other: the same of the other run.
      confidence: of the interval.

    Returns:
      "ratio" and "interval"; both None below three pairs, or where the numbers of either are all
      the same.

    Source:
      E. J. G. Pitman, "A note on normal correlation", and W. A. Morgan, "A test for the
      significance of the difference between the two variances in a sample from a normal bivariate
      population", both in Biometrika 31 (1939).

    Example:
      >>> spread_ratio({0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 6.0, 2: 4.0})["ratio"]
      2.0
    """
    before, after, _ = _pairs(baseline, other)
    if len(before) < 3 or np.ptp(before) == 0 or np.ptp(after) == 0:
        return {"ratio": None, "interval": None}
    from scipy import stats

    ratio = float(np.std(after, ddof=1) / np.std(before, ddof=1))
    free = len(before) - 2
    t = stats.t.ppf((1 + confidence) / 2, free)
    unexplained = max(0.0, 1 - np.corrcoef(before, after)[0, 1] ** 2)
    k = 1 + 2 * unexplained * t**2 / free
    upper = float(np.sqrt(k + np.sqrt(k**2 - 1)))
    return {"ratio": ratio, "interval": [ratio / upper, ratio * upper]}


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's adjusted p-values of a family of tests; None is no test, and stays.

    The k-th smallest of m p-values is multiplied by m - k + 1, and is at least the one before it.

    Source: S. Holm, "A simple sequentially rejective multiple test procedure", 1979.

    Example:
      >>> holm([0.01, 0.5, None, 0.03])
      [0.03, 0.5, None, 0.06]
    """
    order = sorted((i for i, value in enumerate(p) if value is not None), key=lambda i: p[i])
    adjusted: list[float | None] = [None] * len(p)
    least = 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = least
    return adjusted


def compare(runs: Sequence[dict[str, Any]], headline: Headline) -> list[dict[str, Any]]:
    """Each run of a summary against the first one, pair by pair of seeds.

    Args:
      runs: "runs" of summary.json.
      headline: what is compared, on the test split at the last evaluation.
    """
    if len(runs) < 2:
        return []
    key = f"test_{headline.name}"

    def by_seed(run):
        return {t["seed"]: t[key] for t in run["trials"] if t.get(key) is not None}

    baseline = by_seed(runs[0])
    return [
        {
            "run": run["name"],
            "baseline": runs[0]["name"],
            **paired(baseline, by_seed(run), headline=headline),
        }
        for run in runs[1:]
    ]


def headline_of(summary: dict[str, Any]) -> Headline:
    """The headline of a summary.json."""
    return Headline(**summary["headline"])


def table(summary: dict[str, Any]) -> str:
    """The comparison table that a study ends with."""
    headline = headline_of(summary)
    comparison = {row["run"]: row for row in summary["comparison"]}
    width = max([len(run["name"]) for run in summary["runs"]] + [len("run")])
    lines = [
        f"test {headline.label} on {summary['dataset']}, {LAST}",
        f"{'run':<{width}}    mean    std   n   paired difference [95 %]    error reduced",
    ]

    def number(value: float | None, width: int, sign: str = "") -> str:
        text = "-" if value is None else f"{headline.scale * value:{sign}.{_digits(headline)}f}"
        return f"{text:>{width}}"

    for run in summary["runs"]:
        cells = [f"{run['name']:<{width}}", number(run["mean"], 8), number(run["std"], 7)]
        cells.append(f"{run['n']:>4}")
        row = comparison.get(run["name"])
        if row is not None and row["n"]:
            interval = row["interval"]
            between = "[one pair]" if row["n"] == 1 else "[no spread]"
            if interval:
                between = f"[{number(interval[0], 0, '+')}, {number(interval[1], 0, '+')}]"
            reduced = row["error_reduced_percent"]
            cells.append(f"   {number(row['difference'], 6, '+')} {between:<18}")
            cells.append(f"{'-' if reduced is None else f'{reduced:+.1f} %':>15}")
        lines.append("".join(cells))
    return "\n".join(lines)


def _digits(headline: Headline) -> int:
    return 2 if headline.percent else 4
