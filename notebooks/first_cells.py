"""Writes the first two cells of every notebook: the Colab badge, and the installation.

    python notebooks/first_cells.py

REPOSITORY is the only place that holds the address of the repository: change it and run this file.
It also takes outputs away, so that a notebook that was run can be committed.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

REPOSITORY = "OWNER/channelflow"  # on GitHub
BRANCH = "main"
FOLDER = pathlib.Path(__file__).resolve().parent

INSTALL = """# Finds the checkout of this notebook; elsewhere, as in Colab, fetches and installs it.
import pathlib
import subprocess
import sys

here = pathlib.Path.cwd()
checkout = next((p for p in (here, *here.parents) if (p / "experiments/data").is_dir()), None)
if checkout is None:
    checkout = here / "channelflow"
    if not checkout.exists():
        address = "https://github.com/{repository}"
        subprocess.run(["git", "clone", "--quiet", "--depth=1", address, checkout], check=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"{{checkout}}[experiments]"], check=True)
sys.path.insert(0, str(checkout))
%matplotlib inline"""


def badge(name: str) -> str:
    """The link that opens a notebook in Colab, as Markdown."""
    address = "https://colab.research.google.com"
    place = f"{REPOSITORY}/blob/{BRANCH}/notebooks/{name}.ipynb"
    return f"[![Open in Colab]({address}/assets/colab-badge.svg)]({address}/github/{place})"


def clean(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """The notebook with its first two cells as they should be, and without outputs."""
    first, second, *others = notebook["cells"]
    cells = [
        {**first, "source": _lines(badge(name))},
        {**second, "source": _lines(INSTALL.format(repository=REPOSITORY))},
        *others,
    ]
    empty = {"execution_count": None, "outputs": []}
    cells = [{**cell, **empty} if cell["cell_type"] == "code" else cell for cell in cells]
    return {**notebook, "cells": cells}


def dumps(notebook: dict[str, Any]) -> str:
    """The text of a notebook's file, as Jupyter writes it."""
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> None:
    """Writes every notebook of this folder anew."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        notebook = clean(json.loads(path.read_text(encoding="utf-8")), path.stem)
        path.write_text(dumps(notebook), encoding="utf-8")


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


if __name__ == "__main__":
    main()
