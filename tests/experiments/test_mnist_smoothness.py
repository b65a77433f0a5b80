"""The smoothness sweep: swapped splits, its runs, its figure."""

import json

import numpy as np
import pytest

from experiments import data
from experiments.figures import smoothness
from experiments.mnist_smoothness import EXPERIMENT, swapped


def test_it_trains_on_the_test_images():
    digits = data.load("digits", size=16)
    dataset = swapped(data.load("digits"), None)
    np.testing.assert_array_equal(dataset.train.examples, digits.test.examples)
    np.testing.assert_array_equal(dataset.test.labels, digits.train.labels)
    assert len(dataset.train) == 360 and len(dataset.test) == 1437 and dataset.validation is None
    assert dataset.fingerprint != digits.fingerprint


def test_every_metric_at_every_lambda_and_plain_sgd(run_main, tmp_path):
    summary = run_main(
        "mnist_smoothness", "--dataset=digits", "--trials=1", "--sweep=lam:2", "--epochs=0.1",
        f"--workdir={tmp_path}/w",
    )  # fmt: skip
    runs = [(r["settings"]["metric"], r["settings"].get("lam")) for r in summary["runs"]]
    assert runs == [("l2", None), ("reweighted_l2", 2.0), ("sobolev", 2.0)]
    assert (tmp_path / "w/smoothness.png").read_bytes().startswith(b"\x89PNG")
    config = json.loads((tmp_path / "w/config.json").read_text())
    assert "trained on the test images" in config["provenance"]


def test_the_paper_preset_is_the_papers():
    preset = EXPERIMENT.presets["paper"]
    assert (preset["batch_size"], preset["epochs"]) == (100, 100.0)
    assert EXPERIMENT.defaults["paper"]["trials"] == 5
    lams = EXPERIMENT.defaults["paper"]["sweep"][0].partition(":")[2].split(",")
    assert float(lams[-1]) == 20.0


def test_the_figure_shows_means_intervals_and_sgd_as_a_line():
    def run(metric, lam, values):
        trials = [{"seed": s, "test_accuracy": v} for s, v in enumerate(values)]
        trials.append({"seed": 9, "error": "nan", "test_accuracy": None})
        settings = {"metric": metric} | ({} if lam is None else {"lam": lam})
        return {"name": f"{metric}{lam}", "settings": settings, "trials": trials, "n": len(values)}

    runs = [
        run("l2", None, [0.5, 0.6]),
        run("sobolev", 20.0, [0.8, 0.8]),
        run("sobolev", 1.0, [0.6, 0.7]),
        run("sobolev", 5.0, []),
    ]
    headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
    figure = smoothness.against_lambda(
        {"model": "m", "dataset": "d", "headline": headline, "runs": runs}
    )
    (axis,) = figure.axes
    (bars,) = axis.containers
    means = bars.lines[0]
    assert list(means.get_xdata()) == [1, 20]
    assert list(means.get_ydata()) == pytest.approx([65, 80])
    # Two values 10 apart: their deviation is 10 / sqrt 2, so the standard error is 5.
    low, high = bars.lines[2][0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(12.706204736 * 5.0)
    sgd = next(line for line in axis.lines if "lambda = 0" in str(line.get_label()))
    assert list(sgd.get_ydata()) == pytest.approx([55, 55])
