"""experiments/README.md lists every command, every command has a test, and command lines parse."""

import importlib
import pathlib
import re

import pytest
from absl import flags

from experiments.cli import main as command
from tests import markdown

TESTS = pathlib.Path(__file__).resolve().parent
EXPERIMENTS = TESTS.parents[1] / "experiments"
FOLDERS = (EXPERIMENTS, EXPERIMENTS / "analysis", EXPERIMENTS / "benchmarks")
COMMANDS = [
    path for folder in FOLDERS for path in sorted(folder.glob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]  # fmt: skip
TEXT = (EXPERIMENTS / "README.md").read_text()


def name_of(path):
    return ".".join(path.relative_to(EXPERIMENTS.parent).with_suffix("").parts)


@pytest.mark.parametrize("path", COMMANDS, ids=name_of)
def test_a_command_is_in_one_table_and_has_a_test(path):
    rows = re.findall(rf"^\| `{re.escape(name_of(path))}` \|.*$", TEXT, re.MULTILINE)
    assert len(rows) == 1, rows
    cells = [cell.strip() for cell in rows[0].strip("|").split(" | ")]
    assert len(cells) == 5 and all(cells), "command, what it does, paper, minutes, leaves"
    test = TESTS / path.relative_to(EXPERIMENTS).with_name(f"test_{path.name}")
    assert test.exists()


def test_what_the_readme_names_is_there():
    named = set(re.findall(r"python -m (experiments[\w.]+)|^\| `(experiments[\w.]+)`", TEXT, re.M))
    named = {name for pair in named for name in pair if name}
    assert named == {name_of(path) for path in COMMANDS}


ROOT = EXPERIMENTS.parent
PAGES = [ROOT / "README.md", ROOT / "docs/start.md", *sorted((ROOT / "docs/guides").glob("*.md"))]
LINES = re.findall(r"`python -m (experiments\.[^`]+)`", TEXT)
LINES += sorted({line for page in PAGES for line in markdown.commands(page)})


@pytest.mark.parametrize("line", LINES)
def test_the_command_lines_are_understood(line):
    name, *arguments = line.split()
    module = importlib.import_module(name)
    define = module.define if hasattr(module, "define") else module.EXPERIMENT.define
    values = flags.FlagValues()
    define(values)
    several = getattr(module, "SEVERAL", None)
    accepts = getattr(module, "NAMES", ())
    names = command.parse_flags(values, [name, *arguments], accepts, several)
    assert names == [] or several or accepts


def test_nothing_but_commands_is_at_the_top():
    others = {path.name for path in EXPERIMENTS.glob("*.py")} - {path.name for path in COMMANDS}
    assert others == {"__init__.py"}
