"""Names of layers, runs, files and classes are drawn letter by letter, with $ and _ too."""

import dataclasses

import numpy as np
import pytest
from matplotlib import cbook
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from experiments.data.dataset import Dataset, Split
from experiments.figures import (
    correlation,
    filters,
    label_to_image,
    lectures,
    metric_figures,
    report,
    segmentation,
    smoothness,
    sweep,
    tomography,
    training,
)  # fmt: skip
from experiments.training.task import Headline
from tests.experiments.figures import test_report, test_sweep, test_training

NAMES = [r"_cost $of \nosuch$ 50 %", r"a\$_{b}$c"]
PICTURES = np.zeros((2, 8, 8, 3), np.uint8)
CHANCE = {d: {"low": [-0.1], "high": [0.1]} for d in correlation.DIRECTIONS}


def curves(name):
    metrics = [line | {"run": name} for line in test_training.METRICS[:2]]
    return training.curves(metrics, Headline("accuracy"), name)


def histogram(name):
    summary = test_training.summary(5)
    summary["runs"][0]["name"] = name
    return training.histogram(summary, name)


def bars(name):
    summary = test_sweep.summary([test_sweep.RUNS[0], test_sweep.RUNS[1] | {"name": name}])
    return sweep.bars(summary | {"model": name}, Headline("accuracy", percent=True))


def strengths(name):
    runs = [run | {"settings": {name: run["settings"]["dropout"]}} for run in test_sweep.RUNS[:2]]
    runs[1] |= {"name": f"{name}=1"}
    return sweep.strengths(test_sweep.summary(runs), [name])


def column(name):
    made = test_report.column()
    fields = {"title": name, "runs": {name: {}}, "trials": {name: made.trials["l2"]}}
    metrics = [line | {"run": name} for line in made.metrics if line["run"] == "l2"]
    return [dataclasses.replace(made, **fields, metrics=metrics)]


def classes(name):
    run = {"run": name, "n": 1, "class_iou": {name: 0.5}, "scores": {"mean_iou": {"mean": 0.5}}}
    return segmentation.classes({"model": name, "dataset": "d", "runs": [run]})


def panel(name):
    labels = np.zeros((2, 8, 8), np.uint8)
    split = Split(PICTURES, labels)
    made = Dataset("made", split, split, (name, "other"), "made here")
    return segmentation.panel(made, np.array([0]), {name: labels[:1]})


def against_lambda(name):
    settings = {"metric": name, "lam": 1.0}
    run = {"settings": settings, "n": 2, "trials": [{"test_accuracy": a} for a in (0.5, 0.6)]}
    return smoothness.against_lambda(test_sweep.summary([run]) | {"dataset": name})


def runs_by_distance(name):
    line = {"mean": [0.1], "half_interval": [0.1]}
    run = {"seeds": [0]} | dict.fromkeys(correlation.DIRECTIONS, line)
    return correlation.runs_by_distance({name: run}, name)


def histograms(name):
    both = dict.fromkeys(correlation.DIRECTIONS, np.ones(4))
    means = dict.fromkeys(both, 0.1)
    return correlation.histograms(both, np.linspace(-1, 1, 5), means, name)


def metrics(name):
    line = np.linspace(1, 2, 8)
    return metric_figures.metrics({name: line}, {"L2": line, name: line}, name)


FILTERS = np.ones((1, 2, 3, 3))
LAYER = {"output": [0.1], "input": [0.2], "chance": CHANCE}
FIGURES = {  # How often the name is in the figure.
    "curves": (curves, 2), "histogram": (histogram, 2), "bars": (bars, 2),
    "strengths": (strengths, 1), "classes": (classes, 3), "panel": (panel, 2),
    "against_lambda": (against_lambda, 2), "runs_by_distance": (runs_by_distance, 2),
    "histograms": (histograms, 1), "metrics": (metrics, 3),
    "report_histograms": (lambda name: report.histograms(column(name)), 2),
    "report_curves": (lambda name: report.curves(column(name)), 3),
    "by_distance": (lambda name: correlation.by_distance({"a": LAYER}, name), 1),
    "kernel": (lambda name: correlation.kernel_picture(np.ones((2, 3, 1, 1)), name), 1),
    "deviation": (
        lambda name: correlation.mean_against_deviation({"a": (np.ones(2), np.ones(2))}, name), 1
    ),
    "samples": (lambda name: label_to_image.panel({name: PICTURES}, name), 2),
    "filters": (lambda name: filters.filter_rows(*[FILTERS] * 3, np.ones(1), name), 1),
    "activations": (lambda name: filters.activation_rows(PICTURES, PICTURES, name), 1),
    "templates": (lambda name: lectures.templates(np.ones((4, 1)), 2, (name,), name), 2),
    "reconstructions": (
        lambda name: tomography.reconstructions(
            np.ones((2, 2)), {name: {3: np.ones((2, 2))}}, {name: {3: 1.0}}
        ), 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("made", FIGURES)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(made, name):
    make, times = FIGURES[made]
    figure = make(name)
    figure.set_dpi(40)
    FigureCanvasAgg(figure).draw()
    texts = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    # matplotlib takes an even number of dollars for a formula; elsewhere it draws \$ as $.
    drawn = [text.replace(r"\$", "$") for text in texts if not cbook.is_math_text(text)]
    assert sum(name in text for text in drawn) >= times, drawn
