"""Writing a figure: whole or not at all, as PNG and as PDF."""

from __future__ import annotations

import pathlib

import matplotlib
from matplotlib.figure import Figure

_FORMATS = ("png", "pdf")


def save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a figure as PATH (a .png) and as a .pdf beside it.

    Raises:
      OSError: a file cannot be written; what was there is left as it was.
    """
    for kind in _FORMATS:
        target = path.with_suffix(f".{kind}")
        temporary = target.with_name(f".{target.name}")
        try:
            # Text stays text in a PDF, so that it can be searched and edited.
            with matplotlib.rc_context({"pdf.fonttype": 42}):
                figure.savefig(temporary, dpi=150, format=kind)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
