"""The figures of the OptFlow paper show the numbers that they are given, under names."""

import numpy as np

from experiments.figures import optflow_figures as figures


def test_the_rows_of_figure_2_are_named():
    rng = np.random.default_rng(0)
    noise, bar = rng.normal(size=(2, 3, 4, 5, 5))
    figure = figures.filter_pair(noise, bar, np.array([2.5, 1.25]))
    labels = [axis.get_ylabel() for axis in figure.axes[::4]]
    assert labels == ["noise\nR = 2.500", "moving bar\nR = 1.250"]
    # Channels are stored as B, G, R and shown as R, G, B; the greatest weight is 127 away from 127.
    shown = figure.axes[0].images[0].get_array()
    greatest = max(np.abs(noise).max(), np.abs(bar).max())
    expected = np.clip(127 + 128 * noise[::-1, 0].transpose(1, 2, 0) / greatest, 0, 255)
    np.testing.assert_array_equal(shown, expected.astype(np.uint8))


def test_the_steps_of_figure_4_are_told_apart():
    steps = np.array([0.01, 0.1, 0.5])
    costs, norms = np.random.default_rng(0).uniform(size=(2, 3, 20))
    (axis,) = figures.after_a_step(steps, costs, norms).axes
    points = [c for c in axis.lines if len(c.get_xdata()) == 20]
    np.testing.assert_array_equal([c.get_ydata() for c in points], costs)
    np.testing.assert_array_equal([c.get_xdata() for c in points], norms)
    looks = {(c.get_color(), c.get_marker()) for c in points}
    assert len({color for color, _ in looks}) == len({marker for _, marker in looks}) == 3
    medians = {c.get_label(): c.get_xydata()[0] for c in axis.lines if "step" in c.get_label()}
    for i, name in enumerate(("step 0.01", "step 0.1", "step 0.5")):
        np.testing.assert_allclose(medians[name], [np.median(norms[i]), np.median(costs[i])])
    named = [text.get_text() for text in axis.get_legend().get_texts()]
    assert named == ["before", *medians]


def test_time_and_its_growth_are_drawn():
    pixels = [10, 100, 1000]
    left, right = figures.time_and_size(pixels, [1e-3, 1e-2, 1.0], [0.1, 1.0]).axes
    ours, theirs = left.lines
    np.testing.assert_allclose(ours.get_xydata(), [[10, 1], [100, 10], [1000, 1000]])
    np.testing.assert_allclose(theirs.get_xydata(), [[10, 100], [100, 1000]])
    np.testing.assert_allclose(right.lines[0].get_ydata(), [1, 2])
    np.testing.assert_allclose(right.lines[0].get_xdata(), [10**1.5, 10**2.5])
    np.testing.assert_allclose(right.lines[1].get_ydata(), [1])
