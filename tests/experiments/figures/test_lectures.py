"""Figures of the lectures: what they show of the numbers."""

import numpy as np

from experiments.figures import lectures
from experiments.lectures import cliff
from experiments.lectures.bias_variance import decompose
from experiments.lectures.valley import Valley


def test_bias_and_variance_are_shown_at_the_widest_the_best_and_the_narrowest():
    fits = {width: decompose(width, sets=10) for width in (5.0, 0.1, 1.0, 3.0)}
    figure = lectures.bias_variance(fits)
    *panels, curves = figure.axes
    assert [panel.get_title() for panel in panels] == ["width 5", "width 1", "width 0.1"]
    error = next(line for line in curves.lines if line.get_label() == "error")
    np.testing.assert_array_equal(error.get_xdata(), [0.1, 1, 3, 5])
    np.testing.assert_allclose(error.get_ydata(), [fits[w].error for w in (0.1, 1.0, 3.0, 5.0)])


def test_a_template_is_the_weights_of_its_class_as_an_image():
    kernel = np.arange(-8.0, 10).reshape(9, 2)  # a 3 x 3 image of one channel, two classes
    figure = lectures.templates(kernel, 3, ("a", "b"), "title")
    first, second = figure.axes[:2]
    assert (first.get_title(), second.get_title()) == ("a", "b")
    np.testing.assert_allclose(
        first.images[0].get_array(), 0.5 + 0.5 * kernel[:, 0].reshape(3, 3) / 9
    )


def test_paths_begin_at_the_start_and_losses_are_above_the_lowest():
    path = np.array([[0.0, 1.0], [0.5, 0.5]])
    found = Valley(
        np.linspace(-1, 1, 3), np.linspace(-1, 1, 3), np.arange(9.0).reshape(3, 3),
        {"gd": path}, {"gd": np.array([3.0, 1.0])},
    )  # fmt: skip
    plane, curves = lectures.valley(found).axes
    drawn = next(line for line in plane.lines if line.get_label() == "gd")
    np.testing.assert_array_equal(drawn.get_xydata(), path)
    np.testing.assert_allclose(curves.lines[0].get_ydata(), [3, 1])


def test_the_cliff_has_a_curve_for_each_classifier():
    classifier = cliff.fit(0.1)
    (axis,) = lectures.cliff({"some": classifier}).axes
    curve = axis.lines[0]
    np.testing.assert_allclose(curve.get_ydata(), classifier.probability(curve.get_xdata()))
    assert "some" in curve.get_label()
