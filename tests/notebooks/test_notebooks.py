"""The notebooks: stored without outputs, with the common first cells. The docs build runs them."""

import importlib.util
import json
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EXPECTED = {
    "channel_directed_gradients", "ct_total_variation", "gradients_of_small_convnets",
    "optflow_regularizer", "regularization_and_optimization", "reproducing_the_papers",
}  # fmt: skip


@pytest.fixture(scope="module")
def first_cells():
    spec = importlib.util.spec_from_file_location("first_cells", FOLDER / "first_cells.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_all_of_them_are_there():
    assert {path.stem for path in NOTEBOOKS} == EXPECTED


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs_and_with_the_common_first_cells(path, first_cells):
    text = path.read_text(encoding="utf-8")
    badge, install, *_ = json.loads(text)["cells"]
    address = first_cells.REPOSITORY
    assert f"{address}/blob/" in badge["source"][0] and f"{path.stem}.ipynb" in badge["source"][0]
    assert f"https://github.com/{address}" in "".join(install["source"])
    # As `python notebooks/first_cells.py` writes it.
    assert text == first_cells.dumps(first_cells.clean(json.loads(text), path.stem))


def test_a_notebook_that_was_run_is_cleaned(first_cells):
    made = {
        "cells": [
            {"cell_type": "markdown", "source": ["old"]},
            {"cell_type": "code", "source": ["old"], "outputs": [1], "execution_count": 3},
            {
                "cell_type": "code",
                "source": ["x"],
                "outputs": [{"text": "1"}],
                "execution_count": 4,
            },
        ]
    }
    _, install, last = first_cells.clean(made, "made")["cells"]
    assert last == {
        "cell_type": "code", "source": ["x"], "outputs": [], "execution_count": None,
    }  # fmt: skip
    assert install["outputs"] == [] and "git" in "".join(install["source"])
