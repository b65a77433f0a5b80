"""The documentation: its code runs, its links lead somewhere, every public name has a page."""

import ast
import builtins
import doctest
import inspect
import re

import pytest

import channel_grad
import optflow_jax
from tests import markdown

DOCS = markdown.ROOT / "docs"
MADE = ("_build", "generated", "notebooks")  # by the build of the site
PAGES = [
    path for path in sorted(DOCS.rglob("*.md"))
    if not set(MADE) & set(path.relative_to(DOCS).parts)
]  # fmt: skip
WITH_CODE = [path for path in PAGES if markdown.blocks(path, "python")]


def name_of(path):
    return path.relative_to(markdown.ROOT).as_posix()


def public_names():
    """The full name of everything public, and the object."""
    for module in (channel_grad, optflow_jax, optflow_jax.penalties):
        for name in module.__all__:
            value = getattr(module, name)
            if not inspect.ismodule(value):
                yield f"{module.__name__}.{name}", value
    module = channel_grad.correlation
    for name, value in vars(module).items():
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__:
            yield f"{module.__name__}.{name}", value


PUBLIC = dict(public_names())


def summarised_names():
    """What the API pages list for `sphinx.ext.autosummary`, which makes a page of each."""
    for path in (DOCS / "api").glob("*.md"):
        text = path.read_text(encoding="utf-8")
        module = re.search(r"^\.\. automodule:: (\S+)", text, re.M)
        for table in re.findall(r"^\.\. autosummary::\n(.*?)(?=^\S|\Z)", text, re.M | re.S):
            names = re.findall(r"^   ([\w.]+)$", table, re.M)
            yield from (f"{module[1]}.{name}" if module else name for name in names)


@pytest.mark.parametrize("path", WITH_CODE, ids=name_of)
def test_the_code_of_a_page_runs_from_top_to_bottom(path, capsys):
    namespace = {"__name__": "__main__"}
    for number, code in enumerate(markdown.blocks(path, "python")):
        markdown.run(code, f"{name_of(path)}, block {number}", namespace)


@pytest.mark.parametrize("path", [*PAGES, markdown.ROOT / "README.md"], ids=name_of)
def test_links_and_pictures_are_there(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        place = (path.parent / target).resolve()
        if "notebooks" in place.relative_to(markdown.ROOT).parts and place.suffix == ".ipynb":
            place = markdown.ROOT / "notebooks" / place.name  # the build copies them
        assert place.exists(), target


def test_the_supported_versions_of_python_are_the_same_everywhere():
    setup = (markdown.ROOT / "setup.cfg").read_text(encoding="utf-8")
    versions = re.findall(r"^    Programming Language :: Python :: (3\.\d+)$", setup, re.M)
    assert f"python_requires = >={versions[0]}" in setup
    matrix = (markdown.ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert f"python: {versions}".replace("'", '"') in matrix
    for path in (markdown.ROOT / "README.md", DOCS / "start.md"):
        assert f"Python {versions[0]} to {versions[-1]}" in path.read_text(encoding="utf-8")


def test_every_public_name_has_a_page():
    summarised = list(summarised_names())
    written = [path.stem for path in (DOCS / "api/data").glob("*.md")]
    assert sorted(summarised + written) == sorted(PUBLIC)
    assert len(PUBLIC) > 40
    listed = (DOCS / "api/channel_grad.md").read_text(encoding="utf-8")
    assert all(f"data/{name}\n" in listed for name in written)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_an_example_that_is_run(name):
    """Functions and classes in their docstring (pytest runs it), other objects on their page."""
    value = PUBLIC[name]
    if inspect.isfunction(value) or inspect.isclass(value):
        text = value.__doc__ or ""
    else:
        page = DOCS / "api/data" / f"{name}.md"
        text = "".join(markdown.blocks(page, "python"))
        assert f"```{{py:data}} {name}\n" in page.read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_examples(text)
    assert examples
    # A reader who pastes the example has nothing else at hand.
    tree = ast.parse("".join(example.source for example in examples))
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    known = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    known |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    known |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    assert {node.id for node in names} <= known


def test_every_page_and_notebook_is_in_the_contents():
    listed = set()
    for path in PAGES:
        for tree in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(encoding="utf-8"), re.S):
            names = [line for line in tree.splitlines() if line and not line.startswith(":")]
            listed |= {(path.parent / name).relative_to(DOCS).as_posix() for name in names}
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in PAGES}
    notebooks = {f"notebooks/{path.stem}" for path in (markdown.ROOT / "notebooks").glob("*.ipynb")}
    assert listed == (pages - {"index", "pypi"}) | notebooks
