"""The results of the suite as one table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from experiments.benchmarks.gpu.runner import Part


def markdown(parts: Sequence[Part], records: dict[str, dict[str, Any]], heading: str) -> str:
    """A table of what each part found, with the parts that found nothing and why.

    Args:
      parts: in their order.
      records: by the name of the part.
      heading: lines above the table.
    """
    lines = [heading, "", "| part | what | value |", "| --- | --- | --- |"]
    for part in parts:
        record = records[part.name]
        seconds = f", {record['seconds']:.0f} s" if "seconds" in record else ""
        error = f"; {record['error']}" if "error" in record else ""
        lines.append(_row(part.name, part.about, f"{record['status']}{seconds}{error}"))
        lines += [_row("", what, value) for what, value in part.rows(record["results"])]
        if left_out := record["results"].get("left_out"):
            lines.append(_row("", "left out: budget", ", ".join(left_out)))
    return "\n".join(lines)


def spread(values: dict[str, float], form: str = ".3g", unit: str = "") -> str:
    """Median and quartiles in words.

    Example:
      >>> spread({"median": 1.0, "low": 0.9, "high": 1.2}, unit="ms")
      '1 (0.9 to 1.2) ms'
    """
    median, low, high = (format(values[key], form) for key in ("median", "low", "high"))
    return f"{median} ({low} to {high}) {unit}".strip()


def _row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"
