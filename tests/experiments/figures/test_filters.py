"""Figures of filters and activations: one row a filter, one frame a time step."""

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.figures import animation, filters


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
    # An arrow goes where the pixels go: v > 0 is downwards, as rows are counted, and the longest
    # arrow is one pixel long.
    assert (arrows.angles, arrows.scale_units) == ("xy", "xy")
    assert arrows.scale == np.sqrt(u**2 + v**2).max()
    low, high = first.get_ylim()
    assert low > high
    assert "R = 0.5" in first.get_ylabel() and "R = 2" in figure.axes[4].get_ylabel()
    filters.draw_filters(tmp_path, w, u, v, cost, "title")
    names = {"filters.png", "filters.pdf", "filters.gif"}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert frames_of(tmp_path / "filters.gif") == 4


def test_animations_move_and_still_ones_do_not(tmp_path):
    rng = np.random.default_rng(2)
    moving = rng.normal(size=(8, 3, 5, 5))  # With eight the layout moved from frame to frame.
    still = np.repeat(moving[:, :1], 3, axis=1)
    none = np.zeros_like(moving)
    for name, w in (("moving", moving), ("still", still)):
        (tmp_path / name).mkdir()
        filters.draw_filters(tmp_path / name, w, none, none, np.ones(8), "")
        clip = np.zeros((3, 5, 5, 3), np.uint8)
        filters.draw_activations(tmp_path / name, 0, clip, np.abs(w[0])[..., None], "")
        for path in (tmp_path / name).glob("*.gif"):
            with Image.open(path) as animation:
                shown = []
                for t in range(animation.n_frames):
                    animation.seek(t)
                    shown.append(np.asarray(animation.convert("L"), float))
            changes = max(np.abs(a - shown[0]).max() for a in shown)
            assert (changes > 50) == (name == "moving"), path


def test_activations_of_a_clip(tmp_path):
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
    response = rng.uniform(size=(5, 6, 7, 2))
    figure = filters.activation_rows(frames, response, "title")
    # A row for the clip and one for each filter; five frames, all of them shown; a colour bar.
    *grid, bar = figure.axes
    pictures = np.array([axis.images[0].get_array() for axis in grid[5:]])
    np.testing.assert_array_equal(pictures.reshape(2, 5, 6, 7), np.moveaxis(response, 3, 0))
    np.testing.assert_array_equal(grid[4].images[0].get_array(), frames[4])
    assert bar.get_ylabel() == "activation (after ReLU)"
    np.testing.assert_allclose(bar.get_ylim(), [0, response.max()])
    assert [axis.get_ylabel() for axis in grid[::5]] == ["clip", "filter 0", "filter 1"]
    filters.draw_activations(tmp_path, 3, frames, response, "title")
    names = {f"activations_3.{kind}" for kind in ("png", "pdf", "gif")}
    assert {p.name for p in tmp_path.iterdir()} == names
    assert frames_of(tmp_path / "activations_3.gif") == 5


def test_an_animation_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    (tmp_path / "a.gif").write_text("old")

    def draw(t):
        raise ValueError(f"frame {t}")

    with pytest.raises(ValueError, match="frame 0"):
        animation.save(Figure(), draw, 2, tmp_path / "a.gif")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.gif", "old")]
