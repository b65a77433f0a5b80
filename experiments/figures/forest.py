"""The primary contrast of every planned study, in percent of the baseline's error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from experiments.figures.names import plain


def forest(studies: Sequence[dict[str, Any]]) -> Figure:
    """A line for each contrast with its 95 % interval; the margin of the plan is shaded.

    Args:
      studies: results as of `reports.planned.result`.
    """
    rows = [
        (study, row)
        for study in studies
        for row in study["contrasts"]
        if row["error_removed_percent"] is not None
    ]
    figure = Figure(figsize=(8.5, 1.3 + 0.5 * max(1, len(rows))), layout="constrained")
    axis = figure.subplots()
    labels = []
    for place, (study, row) in enumerate(rows):
        primary = row["kind"] == "primary"
        color, value = "C0" if primary else "0.6", row["error_removed_percent"]
        low, high = row["error_removed_interval"] or (value, value)
        margin = study["plan"]["margin_percent_of_error"]
        axis.fill_betweenx(
            [place - 0.4, place + 0.4], -margin, margin, color="C2", alpha=0.15, lw=0
        )
        axis.plot([low, high], [place, place], color=color, lw=2 if primary else 1)
        axis.plot(value, place, "s" if primary else "o", color=color, ms=6 if primary else 4)
        title = f"{study['plan']['title']}\n" if primary else ""
        unfinished = "" if study["complete"] else ", incomplete"
        labels.append(f"{title}{row['contrast']} (n = {row['n']}{unfinished})")
    axis.axvline(0.0, color="k", lw=0.8)
    axis.set_yticks(np.arange(len(rows)), [plain(label) for label in labels], fontsize="small")
    axis.invert_yaxis()
    figure.supxlabel(
        "error removed (% of the baseline's error), 95 % interval\n"
        "blue: primary; grey: exploratory, not adjusted; green: differences that do not matter",
        fontsize="small",
    )
    axis.grid(alpha=0.3, axis="x")
    return figure
