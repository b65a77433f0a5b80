"""The README's examples run as they are pasted, each in an empty namespace."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).resolve().parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_of_the_readme_runs(number):
    code = EXAMPLES[number]
    if "import channel_grad" not in code and "channel_grad." in code:
        code = "import channel_grad\n" + code  # an expression that goes on from the example before
    exec(compile(code, f"README.md, example {number}", "exec"), {})


def test_there_are_examples_of_both_libraries():
    assert any("import channel_grad" in code for code in EXAMPLES)
    assert any("import optflow_jax" in code for code in EXAMPLES)
