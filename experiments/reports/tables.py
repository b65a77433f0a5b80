"""The table of a report as markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from experiments.reports import paper_results
from experiments.reports.studies import Row
from experiments.training import statistics
from experiments.training.task import Headline

_HEADERS = (
    "run", "mean", "std", "n", "diverged", "missing", "compared with", "difference [95 %]",
    "error reduced", "p (t)", "p (Wilcoxon)", "Holm (t)", "Holm (Wilcoxon)", "paper",
    "paper, error reduced",
)  # fmt: skip
NOTE = (
    "n: trials that ended; diverged ones are in no mean and in no difference. Differences are run "
    "- baseline on the same seeds, with the 95 % interval of Student's t. p: two-sided paired t "
    "test and Wilcoxon's signed-rank test; Holm: adjusted for all comparisons of this report."
)
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\^{}", "~": r"\~{}"}
)


def markdown(rows: Sequence[Row], remarks: Sequence[str] = ()) -> str:
    """The table with a heading for each column of the report, the remarks, and table 2."""
    parts = []
    for block in _blocks(rows):
        column = block[0].column
        parts.append(f"## {column.title}\n\nTest {column.headline.label} {statistics.LAST}.")
        parts.append(markdown_table(_HEADERS, [_cells(row) for row in block]))
    parts.append(NOTE)
    if remarks:
        parts.append("## Trials\n\n" + "\n".join(f"- {line}" for line in remarks))
    parts.append(_paper())
    return "\n\n".join(parts) + "\n"


def as_csv(rows: Sequence[Row]) -> str:
    """One line for each row, numbers in full; the paper's in percent, as it prints them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([
        "model", "dataset", "optimizer", "batch_size", "headline", "run", "mean", "std", "n",
        "diverged", "missing", "baseline", "compared_at", "pairs", "difference", "low", "high",
        "error_reduced_percent", "p_t", "p_wilcoxon", "holm_t", "holm_wilcoxon",
        "paper_mean_percent", "paper_error_reduced_percent",
    ])  # fmt: skip
    for row in rows:
        column, paper = row.column, row.paper
        low, high = row.interval or (None, None)
        writer.writerow([
            column.model, column.dataset, column.optimizer, column.batch_size,
            column.headline.name, row.run, row.mean, row.std, row.n, row.diverged, row.missing,
            row.baseline, row.kind, row.pairs, row.difference, low, high, row.error_reduced,
            row.p_t, row.p_wilcoxon, row.holm_t, row.holm_wilcoxon,
            paper and paper.mean, paper and paper.error_reduced,
        ])  # fmt: skip
    return text.getvalue()


def latex(rows: Sequence[Row]) -> str:
    """A tabular that needs no package, with a line above each column of the report."""
    lines = [r"\begin{tabular}{l" + "r" * (len(_HEADERS) - 1) + "}", r"\hline"]
    lines += [_latex_row(_HEADERS), r"\hline"]
    for block in _blocks(rows):
        column = block[0].column
        title = _escaped(f"{column.title}: test {column.headline.label} {statistics.LAST}")
        lines.append(rf"\multicolumn{{{len(_HEADERS)}}}{{l}}{{{title}}} \\")
        lines += [_latex_row(_cells(row)) for row in block]
        lines.append(r"\hline")
    lines += [r"\end{tabular}", f"% {NOTE}", f"% paper: {paper_results.PLACE}"]
    return "\n".join(lines) + "\n"


def _cells(row: Row) -> list[str]:
    headline, paper = row.column.headline, row.paper
    difference = "-" if row.difference is None else _number(row.difference, headline, "+")
    if row.interval:
        low, high = (_number(x, headline, "+") for x in row.interval)
        difference += f" [{low}, {high}]"
    kind = "" if row.kind is None else f" ({row.kind})"
    return [
        row.run,
        _number(row.mean, headline),
        _number(row.std, headline),
        str(row.n),
        str(row.diverged),
        str(row.missing),
        "-" if row.baseline is None else f"{row.baseline}{kind}",
        difference,
        _percent(row.error_reduced),
        *(p_text(p) for p in (row.p_t, row.p_wilcoxon, row.holm_t, row.holm_wilcoxon)),
        "-" if paper is None else f"{paper.mean:.2f}",
        "-" if paper is None else _percent(paper.error_reduced),
    ]


def _number(value: float | None, headline: Headline, sign: str = "") -> str:
    digits = 2 if headline.percent else 4
    return "-" if value is None else f"{headline.scale * value:{sign}.{digits}f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def p_text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _blocks(rows: Sequence[Row]) -> list[list[Row]]:
    blocks: dict[str, list[Row]] = {}
    for row in rows:
        blocks.setdefault(row.column.title, []).append(row)
    return list(blocks.values())


def markdown_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join("| " + " | ".join(x.replace("|", r"\|") for x in row) + " |" for row in lines)


def _paper() -> str:
    """Table 2 as the paper prints it."""
    blocks = list(dict.fromkeys(key[:2] for key in paper_results.TABLE_2))
    headers = ["network", "optimizer", "metric", "batch 128", "batch 32", "batch 8"]
    rows = []
    for model, optimizer in blocks:
        for metric in ("l2", "sobolev", "reweighted_l2"):
            cells = []
            for batch_size in (128, 32, 8):
                cell = paper_results.TABLE_2[model, optimizer, batch_size, metric]
                reduced = "" if cell.error_reduced is None else f" ({cell.error_reduced:.1f} %)"
                cells.append(f"{cell.mean:.2f}{reduced}")
            rows.append([model, optimizer, metric, *cells])
    return (
        f"## What the paper reports\n\n{paper_results.PLACE}: test accuracy on CIFAR-10 in percent "
        "(error reduced), means of 25 trials for sgd and of 10 for adam.\n\n"
        + markdown_table(headers, rows)
    )


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(_escaped(cell) for cell in cells) + r" \\"


def _escaped(text: str) -> str:
    return text.translate(_LATEX)
