"""Figures of a report: what is drawn is what the trials measured."""

import numpy as np
import pytest

from experiments.figures import report as figures
from experiments.reports.studies import Column
from experiments.training.task import Headline


def column(optimizer="sgd", metrics=True):
    trials = {
        "l2": {0: {"test_accuracy": 0.5}, 1: {"test_accuracy": 0.7}},
        "sobolev": {0: {"test_accuracy": 0.8}, 1: {"error": "nan", "test_accuracy": None}},
    }
    lines = [
        {
            "run": run, "seed": seed, "step": epoch, "epoch": epoch,
            "train_accuracy": 0.1 * epoch, "test_accuracy": row["test_accuracy"] * epoch / 2,
        }
        for run, rows in trials.items() for seed, row in rows.items() if "error" not in row
        for epoch in (1, 2)
    ]  # fmt: skip
    return Column(
        title=f"net, {optimizer}", model="net", dataset="d", optimizer=optimizer, batch_size=8,
        headline=Headline("accuracy", percent=True), runs={"l2": {}, "sobolev": {}},
        trials=trials, missing={"l2": [], "sobolev": []}, duplicates=[],
        metrics=lines if metrics else [],
    )  # fmt: skip


def test_a_histogram_counts_the_trials_that_ended():
    (axis,) = figures.histograms([column()]).axes
    assert sum(bar.get_height() for bar in axis.patches) == 3
    means = [line.get_xdata()[0] for line in axis.lines]
    assert means == pytest.approx([60.0, 80.0])
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["l2 (n = 2)", "sobolev (n = 1)"]


def test_curves_are_means_over_trials_for_training_and_test():
    train, test = figures.curves([column()]).axes
    l2, sobolev = test.lines
    np.testing.assert_allclose(np.stack(l2.get_data()), [[1, 2], [30, 60]])
    np.testing.assert_allclose(np.stack(sobolev.get_data()), [[1, 2], [40, 80]])
    np.testing.assert_allclose(np.stack(train.lines[0].get_data()), [[1, 2], [10, 20]])
    shade = test.collections[0].get_paths()[0].vertices
    assert shade[:, 1].min() == pytest.approx(25) and shade[:, 1].max() == pytest.approx(70)


def test_one_file_of_curves_for_each_optimizer(tmp_path):
    figures.draw(tmp_path, [column(), column("adam"), column("muon", metrics=False)])
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"histogram.png", "curves_sgd.png", "curves_adam.png"}
