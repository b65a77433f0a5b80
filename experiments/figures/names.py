"""Names of layers, runs, files and classes in figures."""

from __future__ import annotations


def plain(name: str) -> str:
    r"""A text that matplotlib draws as this name, letter by letter.

    Without it what is between two dollar signs would be a formula, or no formula and an error, and
    a legend would leave out a name that begins with an underscore.

    Example:
      >>> plain("cost_$"), plain("_old")
      ('cost_\\$', ' _old')
    """
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")
