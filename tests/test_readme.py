"""The README is short, its examples run as they are pasted, and what it links to is there."""

import re

import pytest

from tests import markdown

README = markdown.ROOT / "README.md"
EXAMPLES = markdown.blocks(README, "python")


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(number):
    markdown.run(EXAMPLES[number], f"README.md, example {number}", {})


def test_there_are_examples_of_both_libraries():
    assert any("import channel_grad" in code for code in EXAMPLES)
    assert any("import optflow_jax" in code for code in EXAMPLES)


def test_it_is_short():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 120


def test_the_test_command_is_where_ci_looks_for_it():
    text = README.read_text(encoding="utf-8")
    (block,) = re.findall(r"^<!-- test command -->\n```sh\n(.*?)```", text, re.M | re.S)
    assert block.splitlines()[-1] == "python -m pytest -n 2 -q"
