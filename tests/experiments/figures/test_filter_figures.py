"""Figures of filters and activations: one row a filter, one frame a time step."""

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from experiments.figures import filters, optflow


def frames_of(path):
    with Image.open(path) as animation:
        return animation.n_frames


def test_filters_as_rows_of_frames_and_as_an_animation(tmp_path):
    rng = np.random.default_rng(0)
    w, u, v = rng.normal(size=(3, 2, 4, 5, 6))
    cost = np.array([0.5, 2.0])
    figure = filters.filter_rows(w, u, v, cost, "title")
    assert len(figure.axes) == 2 * 4
    first = figure.axes[0]
    np.testing.assert_array_equal(first.images[0].get_array(), w[0, 0])
    (arrows,) = (c for c in first.collections if hasattr(c, "U"))
    np.testing.assert_allclose(arrows.U, u[0, 0].ravel())
    np.testing.assert_allclose(arrows.V, v[0, 0].ravel())
    assert "R = 0.5" in first.get_ylabel() and "R = 2" in figure.axes[4].get_ylabel()
    filters.draw_filters(tmp_path, w, u, v, cost, "title")
    assert {p.name for p in tmp_path.iterdir()} == {"filters.png", "filters.gif"}
    assert frames_of(tmp_path / "filters.gif") == 4


def test_activations_of_a_clip(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    filters.draw_activations(tmp_path, 3, frames, rng.uniform(size=(5, 6, 7, 2)), "title")
    assert {p.name for p in tmp_path.iterdir()} == {"activations_3.png", "activations_3.gif"}
    assert frames_of(tmp_path / "activations_3.gif") == 5


def test_power_law_is_drawn_through_its_points():
    pixels = [27, 64, 125]
    seconds = [2e-6 * n**1.1 for n in pixels]
    figure = optflow.time_and_size(pixels, seconds, 1.1, seconds[:2], 1.1)
    points, fit = figure.axes[0].get_lines()[:2]
    np.testing.assert_allclose(points.get_ydata(), 1e3 * np.array(seconds))
    np.testing.assert_allclose(fit.get_ydata(), points.get_ydata(), rtol=1e-6)
    plt.close("all")
