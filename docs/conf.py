"""The documentation site.

    python -m sphinx -W docs docs/_build/html                          # runs the notebooks
    DOCS_EXECUTE=off python -m sphinx -W docs docs/_build/html         # does not: seconds

The notebooks are copied from notebooks/ and run there without outputs of their own. The build needs
no network.
"""

import os
import pathlib
import re
import shutil
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import channel_grad  # noqa: E402

shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(ROOT / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns("*.py"))

project = "channelflow"
author = "The channelflow authors"
release = version = channel_grad.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "pypi.md", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

html_theme = "sphinx_book_theme"
html_title = f"channelflow {release}"
html_theme_options = {"show_toc_level": 2, "show_navbar_depth": 2}

# Every heading can be linked to.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

# "force": outputs are always of this code. What a cell writes to stderr is a warning.
nb_execution_mode = os.environ.get("DOCS_EXECUTE", "force")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_output_stderr = "warn"

# Names in single quotes of a docstring are code. Types of arguments are in its text.
default_role = "code"
autodoc_typehints = "none"
autodoc_member_order = "bysource"
autosummary_imported_members = True
napoleon_custom_sections = ["Source", "Returns"]
napoleon_attr_annotations = False
napoleon_use_rtype = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 80
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def plain_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: indented formulas are literal, and * and | mean themselves."""
    blocks, in_sections = [], False
    for block in "\n".join(lines).strip("\n").split("\n\n"):
        in_sections = in_sections or re.match(r"[A-Z]\w+:( |\n|$)", block)
        if block.startswith("    ") and not in_sections:
            block = f"::\n\n{block}"
        elif not block.lstrip().startswith(">>>"):
            parts = re.split(r"(``.*?``|`.*?`|^ *\* |^ *>>> .*(?:\n.+)*)", block, flags=re.S | re.M)
            parts[::2] = [re.sub(r"([*|])", r"\\\1", text) for text in parts[::2]]
            block = "".join(parts)
        blocks.append(block)
    lines[:] = "\n\n".join(blocks).split("\n") + [""]


def skip(app, what, name, obj, skip, options):
    """The fields of a NamedTuple are told by its docstring."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field") else None


def setup(app):
    # Before napoleon, which makes reStructuredText of the sections.
    app.connect("autodoc-process-docstring", plain_text, priority=400)
    app.connect("autodoc-skip-member", skip)
