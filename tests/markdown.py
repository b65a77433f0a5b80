"""The code in Markdown files, and how it is run."""

import doctest
import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[1]


def blocks(path: pathlib.Path, language: str) -> list[str]:
    """The text of the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)


def run(code: str, name: str, namespace: dict) -> None:
    """Runs a block: statements, or a session with >>> whose output is compared."""
    if not code.lstrip().startswith(">>>"):
        exec(compile(code, name, "exec"), namespace)
        return
    test = doctest.DocTestParser().get_doctest(code, namespace, name, name, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)


def commands(path: pathlib.Path) -> list[str]:
    """The command lines `python -m experiments.NAME ...` of the shell blocks."""
    shell = "\n".join(blocks(path, "sh"))
    return re.findall(r"python -m (experiments\.\S[^#\n]*)", shell)
