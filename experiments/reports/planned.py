"""What a planned study found: its primary contrast, the exploratory ones, equivalence beside each.

Effects are given in percent of the baseline's error too, so that studies can be compared: positive
is less error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.reports.plans import Contrast, Plan
from experiments.reports.studies import Column, Part, join, remarks
from experiments.reports.tables import markdown_table, p_text
from experiments.system.errors import ConfigError, UserError
from experiments.training import statistics

NOTE = (
    "Primary first; the others are exploratory, Holm-adjusted among themselves. Difference: run - "
    "baseline on the same seeds, 95 % interval of Student's t. Error removed: the same in percent "
    "of the baseline's error, positive is better. Equivalent: two one-sided t tests at 5 % against "
    "the margin of the plan."
)


def result(plan: Plan, parts: Sequence[Part], dates: dict[str, str]) -> dict[str, Any]:
    """What is written to experiments/results/NAME.json.

    Args:
      plan: the study's.
      parts: its workdirs.
      dates: of the plan and the first trial.

    Raises:
      UserError: the parts do not belong together, or a run of the plan is missing.
    """
    columns = join(parts)
    if len(columns) > 1:
        titles = "; ".join(column.title for column in columns)
        raise UserError(f"workdir: got several studies ({titles}); accepted: parts of one")
    (column,) = columns
    primary = {"kind": "primary", **_contrast(plan, column, plan.primary)}
    others = [
        {"kind": "exploratory", **_contrast(plan, column, contrast)} for contrast in plan.secondary
    ]
    adjusted = statistics.holm([row["p_t"] for row in others])
    others = [row | {"holm_t": p} for row, p in zip(others, adjusted, strict=True)]
    return {
        "study": plan.name,
        "plan": {
            "title": plan.title,
            "question": plan.question,
            "command": plan.command,
            "machine": plan.machine,
            "n": plan.n,
            "endpoint": plan.endpoint,
            "margin_percent_of_error": plan.margin_percent_of_error,
        },
        "committed": dates,
        "complete": primary["n"] >= plan.n,
        "contrasts": [primary, *others],
        "remarks": remarks(columns),
        "environments": [part.record.get("environment") for part in parts],
        "summary": column.summary,
    }


def table(found: dict[str, Any]) -> str:
    """The table of a study, in markdown."""
    plan, headline = found["plan"], statistics.headline_of(found["summary"])
    scale, digits = headline.scale, 2 if headline.percent else 4

    def pair(value: float | None, interval: Sequence[float] | None, factor: float = 1.0) -> str:
        if value is None:
            return "-"
        text = f"{factor * value:+.{digits}f}"
        if interval is None:
            return text
        low, high = interval
        return f"{text} [{factor * low:+.{digits}f}, {factor * high:+.{digits}f}]"

    rows = []
    for row in found["contrasts"]:
        equal = row["equivalence"]
        same = {True: "yes", False: "no", None: "-"}[equal["equivalent"]]
        rows.append([
            row["kind"], row["contrast"], str(row["n"]),
            pair(row["difference"], row["interval"], scale),
            pair(row["error_removed_percent"], row["error_removed_interval"]),
            p_text(row["p_t"]), p_text(row.get("holm_t")),
            "-" if equal["p"] is None else f"{same} (p {p_text(equal['p'])})",
        ])  # fmt: skip
    state = "" if found["complete"] else f" **Incomplete: {plan['n']} seeds were planned.**"
    lines = [
        f"## {plan['title']}\n\n{plan['question']}{state}",
        f"Endpoint: {plan['endpoint']} {statistics.LAST}; margin: "
        f"{plan['margin_percent_of_error']:g} % of the error. Plan committed "
        f"{found['committed']['plan']}, first trial {found['committed']['first_trial']}.",
        markdown_table(
            ("", "contrast", "n", "difference [95 %]", "error removed (%) [95 %]", "p (t)", "Holm",
             "equivalent"), rows,
        ),
        NOTE,
    ]  # fmt: skip
    lines += [_shift_text(row) for row in found["contrasts"] if "shift" in row]
    if found["remarks"]:
        lines.append("\n".join(f"- {line}" for line in found["remarks"]))
    return "\n\n".join(lines) + "\n"


def shift(
    values: dict[tuple[bool, float], dict[int, float]], confidence: float = 0.95
) -> dict[str, Any]:
    """The vertical and the horizontal part of what a metric does to a curve over learning rates.

        value = a[seed] + q(x + s m) + v m,   q(x) = b x + c x^2,   x = log(rate)

    with m = 1 under the metric and 0 without. It is linear in (a, b, c, d, e),
    value = a[seed] + b x + c x^2 + m (d + e x) with e = 2 c s and d = b s + c s^2 + v, so least
    squares give e and d, and these s and v: a real gain is v, another learning rate in disguise s.

    Args:
      values: the numbers by seed, of each (metric, rate); a seed that any of them lacks is left
        out.
      confidence: of the intervals, by the jackknife over seeds.

    Returns:
      "v" and "s", each with its "value", "interval" and "values" (by seed: the jackknife's
      pseudo-values, moved to the mean "value"; the interval is Student's of them), and "seeds".

    Raises:
      ValueError: there are fewer than three rates with and without the metric.
    """
    for metric in (False, True):
        rates = sorted({rate for with_metric, rate in values if with_metric == metric})
        if len(rates) < 3:
            which = "with" if metric else "without"
            raise ValueError(f"values: got {rates} {which} the metric; accepted: 3 rates or more")
    seeds = sorted(set.intersection(*(set(found) for found in values.values())))
    cells = list(values)
    x = np.log([rate for _, rate in cells])
    x = x - x.mean()
    m = np.array([float(with_metric) for with_metric, _ in cells])
    design = np.stack([np.ones_like(x), x, x**2, m, m * x], axis=1)
    numbers = np.array([[values[cell][seed] for cell in cells] for seed in seeds])

    def fit(chosen: np.ndarray) -> np.ndarray:
        # All seeds have the same rates, so the means over seeds give what all trials give.
        _, b, c, d, e = np.linalg.lstsq(design, chosen.mean(axis=0), rcond=None)[0]
        s = e / (2 * c)
        return np.array([d - b * s - c * s**2, s])

    result: dict[str, Any] = {"seeds": seeds}
    if not seeds:
        return result | {name: {"value": None, "interval": None, "values": {}} for name in "vs"}
    whole = fit(numbers)
    n = len(seeds)
    pseudo = np.full((n, 2), np.nan)
    if n > 1:
        left_out = np.array([fit(np.delete(numbers, i, axis=0)) for i in range(n)])
        pseudo = whole - (n - 1) * (left_out - left_out.mean(axis=0))
    for index, name in enumerate("vs"):
        own = dict(zip(seeds, pseudo[:, index].tolist(), strict=True))
        spread = statistics.paired(dict.fromkeys(seeds, 0.0), own, confidence)
        result[name] = {
            "value": float(whole[index]), "interval": spread["interval"], "values": own,
        }  # fmt: skip
    return result


def _contrast(plan: Plan, column: Column, contrast: Contrast) -> dict[str, Any]:
    headline = column.headline
    more: dict[str, Any] = {}
    if contrast.model:
        cells, base = _surface(plan, column)
        fitted = shift(cells)
        before, after = dict.fromkeys(fitted["seeds"], 0.0), fitted["v"]["values"]
        error_of = list(base.values())
        more["shift"] = {name: fitted["s"][name] for name in ("value", "interval")}
    else:
        for name in (contrast.run, contrast.baseline):
            if name not in column.runs:
                raise ConfigError(
                    f"study: {plan.path}: run",
                    name,
                    f"a run of the study: {', '.join(column.runs)}",
                )
        before, after = (_values(plan, column, n) for n in (contrast.baseline, contrast.run))
        error_of = [before[seed] for seed in before if seed in after]
    pair = statistics.paired(before, after)
    row = {
        "contrast": contrast.name,
        "why": contrast.why,
        "n": pair["n"],
        "difference": pair["difference"],
        "interval": pair["interval"],
        "error_removed_percent": None,
        "error_removed_interval": None,
        "p_t": None,
        "p_wilcoxon": None,
        "equivalence": {"margin": None, "interval": None, "p": None, "equivalent": None},
        **more,
    }
    if not pair["n"]:
        return row
    p = statistics.p_values(before, after)
    row |= {"p_t": p["t"], "p_wilcoxon": p["wilcoxon"]}
    error = statistics.mean_error(error_of, headline)
    if error > 0:
        unit = (100 if headline.higher_is_better else -100) / error
        row["error_removed_percent"] = unit * pair["difference"]
        if pair["interval"]:
            row["error_removed_interval"] = sorted(unit * end for end in pair["interval"])
        margin = plan.margin_percent_of_error / 100 * error
        row["equivalence"] = statistics.equivalence(before, after, margin)
    return row


def _values(plan: Plan, column: Column, run: str) -> dict[int, float]:
    """The endpoint of each trial that ended, by its seed."""
    rows = column.trials[run].items()
    found = {seed: row.get(plan.endpoint) for seed, row in rows if "error" not in row}
    if found and all(value is None for value in found.values()):
        known = sorted(key for row in column.trials[run].values() for key in row if "test_" in key)
        accepted = f"one of {', '.join(dict.fromkeys(known))}"
        raise ConfigError(f"study: {plan.path}: endpoint", plan.endpoint, accepted)
    return {seed: value for seed, value in found.items() if value is not None}


def _surface(
    plan: Plan, column: Column
) -> tuple[dict[tuple[bool, float], dict[int, float]], dict[int, float]]:
    """The endpoint by (metric or not, rate), and the baseline's."""
    first = next(iter(column.runs))
    cells = {}
    for run, settings in column.runs.items():
        with_metric = settings["metric"] != column.runs[first]["metric"]
        cells[with_metric, settings["learning_rate"]] = _values(plan, column, run)
    return cells, cells[False, column.runs[first]["learning_rate"]]


def _shift_text(row: dict[str, Any]) -> str:
    moved = row["shift"]
    if moved["value"] is None:
        return "s: no seed has every run"
    text = f"s = {moved['value']:+.3f}"
    if moved["interval"]:
        low, high = moved["interval"]
        text += f" [{low:+.3f}, {high:+.3f}]"
    return (
        f"The metric moves the curve like a rate that is {math.exp(moved['value']):.2f} times as "
        f"large ({text} in log(rate)); the primary contrast is what is left, v."
    )
