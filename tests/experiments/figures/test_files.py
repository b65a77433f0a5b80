"""A figure is written whole or not at all, as PNG and PDF, without matplotlib's global state."""

import pathlib
import re
import subprocess
import sys

import pytest
from matplotlib.figure import Figure

from experiments.figures.files import save

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[3] / "experiments"


def test_a_figure_is_a_png_and_a_pdf(tmp_path):
    figure = Figure()
    figure.subplots().set_title("words")
    save(figure, tmp_path / "a.png")
    assert {p.name for p in tmp_path.iterdir()} == {"a.png", "a.pdf"}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


def test_a_figure_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    (tmp_path / "a.png").write_text("old")
    figure = Figure()
    figure.subplots().set_title(r"$\nosuchcommand$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        save(figure, tmp_path / "a.png")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.png", "old")]


def test_pyplot_and_global_backends_are_used_nowhere():
    for path in EXPERIMENTS.rglob("*.py"):
        found = re.search(r"pyplot|matplotlib\.use\(", path.read_text())
        assert not found, f"{path}: {found}"


def test_importing_the_figures_leaves_pyplot_alone():
    modules = [p.stem for p in (EXPERIMENTS / "figures").glob("*.py") if p.stem != "__init__"]
    code = "import sys\n" + "\n".join(f"import experiments.figures.{m}" for m in modules)
    code += "\nsys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=EXPERIMENTS.parent).returncode == 0
