"""Figures of sweeps and searches: what is drawn is what was measured."""

import numpy as np
import pytest

from experiments.figures import sweep as figures


def run(name, settings, validation, train, failed=0):
    trials = [
        {
            "seed": seed,
            "best": {"validation_accuracy": v, "test_accuracy": v},
            "train_accuracy": t,
            "validation_accuracy": v,
            "test_accuracy": v,
        }
        for seed, (v, t) in enumerate(zip(validation, train, strict=True))
    ]
    trials += [{"seed": 9 + i, "error": "nan", "test_accuracy": None} for i in range(failed)]
    base = {"optflow_strength": 0.0, "dropout": 0.2, "metric": "l2"}
    return {"name": name, "settings": base | settings, "trials": trials, "n": len(validation)}


RUNS = [
    run("baseline", {}, [0.5, 0.7], [1.0, 0.9]),
    run("optflow_strength=10", {"optflow_strength": 10.0}, [0.4], [0.8], failed=1),
    run("optflow_strength=1", {"optflow_strength": 1.0}, [0.6, 0.7], [0.9, 0.9]),
    run("optflow_strength=100", {"optflow_strength": 100.0}, [], [], failed=2),
    run("dropout=0", {"dropout": 0.0}, [0.3, 0.4], [1.0, 1.0]),
]


def summary(runs):
    headline = {"name": "accuracy", "higher_is_better": True, "percent": True}
    return {"model": "m", "dataset": "d", "headline": headline, "runs": runs}


def test_means_against_strengths_in_order_with_failed_trials_left_out():
    figure = figures.strengths(summary(RUNS), ["optflow_strength", "dropout"])
    first, second = figure.axes
    train, validation = (line for line in first.lines if line.get_linestyle() == "-")
    np.testing.assert_allclose(train.get_data(), [[0, 1, 10], [95, 90, 80]])
    np.testing.assert_allclose(validation.get_data(), [[0, 1, 10], [60, 65, 40]])
    _, validation = (line for line in second.lines if line.get_linestyle() == "-")
    np.testing.assert_allclose(validation.get_data(), [[0, 0.2], [35, 60]])
    dots = [y for line in first.lines if line.get_linestyle() == "None" for y in line.get_ydata()]
    expected = [50, 70, 60, 70, 40, 100, 90, 90, 90, 80]  # validation and training, every trial
    np.testing.assert_allclose(sorted(dots), sorted(expected))
    assert "m on d" in figure.get_suptitle()


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        (RUNS, {"sweep", "sweep_optflow_strength", "sweep_dropout"}),
        (RUNS[:4], {"sweep_optflow_strength"}),
        (RUNS[:1], set()),
        ([*RUNS[:1], run("metric=sobolev", {"metric": "sobolev"}, [0.8], [0.9])], {"runs"}),
    ],
)
def test_one_figure_for_each_setting_and_one_for_all(tmp_path, runs, names):
    figures.draw_sweep(tmp_path, summary(runs))
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {f"{name}.{kind}" for name in names for kind in ("png", "pdf")}


def test_the_best_run_of_a_search_is_marked(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append((figure, path)))
    runs = [RUNS[2], RUNS[0], run("c", {"optflow_strength": 5.0, "dropout": 0.4}, [0.9], [1.0])]
    figures.draw_search(tmp_path, summary(runs), ["optflow_strength", "dropout"])
    ((figure, path),) = kept
    assert path == tmp_path / "search.png"
    points = [axis.lines[0].get_data() for axis in figure.axes]
    np.testing.assert_allclose(points[0], [[1.0, 0.0, 5.0], [65, 60, 90]])
    stars = [line.get_data() for axis in figure.axes for line in axis.lines[1:]]
    np.testing.assert_allclose(np.ravel(stars), [5.0, 90.0, 0.4, 90.0])


def test_lower_is_better_picks_the_lowest(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(figures, "save", lambda figure, path: kept.append(figure))
    told = summary([RUNS[0], RUNS[2]])  # means 0.6 and 0.65
    told["headline"] |= {"higher_is_better": False, "percent": False}
    figures.draw_search(tmp_path, told, ["optflow_strength"])
    ((axis,),) = (figure.axes for figure in kept)
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.0, 0.6]])
    assert axis.get_ylabel() == "best validation accuracy"


def test_bars_of_negative_numbers_are_inside_the_axis():
    told = summary([RUNS[0], RUNS[2]])
    told["headline"]["percent"] = False
    for trial in (t for row in told["runs"] for t in row["trials"]):
        trial["test_accuracy"] = trial["best"]["test_accuracy"] - 10
    (axis,) = figures.bars(told, figures.statistics.headline_of(told)).axes
    low, high = axis.get_xlim()
    assert low < -9.5 and high > -9.3


def test_bars_of_percent_end_at_a_hundred_and_the_caption_is_inside_the_figure():
    told = summary([run("baseline", {}, [0.1, 0.9], [1.0, 1.0]), *RUNS[1:2]])  # interval to 558 %
    figure = figures.bars(told, figures.statistics.headline_of(told))
    figure.canvas.draw()
    assert figure.axes[0].get_xlim() == (0.0, 100.0)
    (caption,) = (text for text in figure.texts if text.get_text().startswith("bars: "))
    box, edge = caption.get_window_extent(), figure.bbox
    assert edge.x0 <= box.x0 and box.x1 <= edge.x1
