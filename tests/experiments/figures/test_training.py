"""The figures show the numbers that were saved."""

import json

import matplotlib.colors
import numpy as np
import pytest

from experiments.figures import training
from experiments.training.task import Headline


def line(run, seed, epoch, accuracy):
    return {
        "run": run, "seed": seed, "epoch": epoch, "step": int(10 * epoch),
        "train_accuracy": accuracy + 0.1, "test_accuracy": accuracy,
        "train_loss": 1 - accuracy, "test_loss": 2 - accuracy,
    }  # fmt: skip


METRICS = [
    line(run, seed, epoch, base + 0.1 * epoch + 0.02 * seed)
    for run, base in (("l2", 0.2), ("sobolev", 0.3))
    for seed in (0, 1)
    for epoch in (1.0, 2.0)
]


def summary(trials):
    def run(name, base):
        accuracies = [base + 0.01 * s for s in range(trials)]
        return {
            "name": name,
            "n": trials,
            "trials": [{"seed": s, "test_accuracy": a} for s, a in enumerate(accuracies)],
        }

    runs = [run("l2", 0.5), run("sobolev", 0.6)]
    headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
    return {"model": "m", "dataset": "digits", "headline": headline, "runs": runs}


ACCURACY = Headline("accuracy", percent=True)


def test_curves_are_the_means_over_trials_and_the_shade_their_range():
    figure = training.curves(METRICS, ACCURACY, "title")
    test_panel = figure.axes[1]
    assert test_panel.get_title() == "test"
    curves = {c.get_label(): c.get_xydata() for c in test_panel.get_lines()}
    np.testing.assert_allclose(curves["sobolev (n = 2)"], [[1.0, 41.0], [2.0, 51.0]])
    np.testing.assert_allclose(curves["l2 (n = 2)"], [[1.0, 31.0], [2.0, 41.0]])
    shade = test_panel.collections[0].get_paths()[0].vertices[:, 1]
    assert shade.min() == pytest.approx(30.0) and shade.max() == pytest.approx(42.0)
    assert figure.axes[0].get_ylabel() == "accuracy (%)"
    note = test_panel.get_legend().get_title().get_text()
    assert note == "mean of n trials; shaded: lowest to highest"
    loss = training.curves(METRICS, Headline("loss", False), "t")
    assert loss.axes[0].get_ylabel() == "loss"
    np.testing.assert_allclose(loss.axes[1].get_lines()[0].get_ydata(), [1.69, 1.59])


def test_the_range_of_a_single_evaluation_has_a_width():
    figure = training.curves([x for x in METRICS if x["epoch"] == 1], ACCURACY, "title")
    bars = [c for c in figure.axes[1].collections if c.get_linewidth()[0] > 1]
    segments = [bar.get_segments()[0].tolist() for bar in bars]
    np.testing.assert_allclose(segments, [[[1, 30], [1, 32]], [[1, 40], [1, 42]]])


def test_one_trial_has_neither_shade_nor_note():
    figure = training.curves([x for x in METRICS if x["seed"] == 0], ACCURACY, "title")
    assert not figure.axes[1].collections
    assert figure.axes[1].get_legend().get_title().get_text() == ""


def test_an_accuracy_of_zero_is_drawn():
    told = summary(5)
    told["runs"][0]["trials"][0]["test_accuracy"] = 0.0
    (axis,) = training.histogram(told, "title").axes
    assert sum(p.get_height() for p in axis.patches) == 10
    metrics = [x | {"test_accuracy": 0.0} for x in METRICS]
    lines = training.curves(metrics, ACCURACY, "t").axes[1].get_lines()
    np.testing.assert_array_equal([line.get_ydata() for line in lines], np.zeros((2, 2)))


def test_histogram_counts_every_trial():
    figure = training.histogram(summary(6), "title")
    (axis,) = figure.axes
    heights = sum(p.get_height() for p in axis.patches)
    assert heights == 12
    dashed = sorted(line.get_xdata()[0] for line in axis.get_lines())
    np.testing.assert_allclose(dashed, [52.5, 62.5])


@pytest.mark.parametrize(("trials", "histogram"), [(4, False), (5, True)])
def test_draw_writes_a_histogram_from_five_trials_on(tmp_path, trials, histogram):
    lines = "".join(json.dumps(x) + "\n" for x in METRICS)
    (tmp_path / "metrics.jsonl").write_text(lines)
    training.draw(tmp_path, summary(trials))
    figures = {"accuracy", "loss"} | ({"histogram"} if histogram else set())
    names = {f"{name}.{kind}" for name in figures for kind in ("png", "pdf")}
    assert {p.name for p in tmp_path.iterdir()} == names | {"metrics.jsonl"}


def test_nothing_is_drawn_where_nothing_was_recorded(tmp_path):
    training.draw(tmp_path, summary(5))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("runs", [2, 21])
def test_curves_keep_their_size_and_colours_however_many_runs(runs):
    metrics = [
        {**line(f"optflow_strength={i}", 0, epoch, i / 100), "train_loss": 1.0, "test_loss": 1.0}
        for i in range(runs)
        for epoch in (1, 2)
    ]
    figure = training.curves(metrics, ACCURACY, "title")
    figure.canvas.draw()
    for axis in figure.axes:
        size = axis.get_window_extent().size / figure.dpi
        assert size[0] > 3 and size[1] > 2.5, size  # inches
        colours = {tuple(np.round(matplotlib.colors.to_rgb(c.get_color()), 4)) for c in axis.lines}
        assert len(colours) == len(axis.lines) == runs
