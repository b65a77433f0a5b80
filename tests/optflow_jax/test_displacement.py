"""The unit and the sign of the flow: a texture that moves by a known number of pixels."""

import jax
import numpy as np
import pytest

import optflow_jax


def moving(dx, dy, frames=4, height=24, width=28):
    """A smooth texture that moves by (dx, dy) pixels per frame, to the right and downwards."""
    t, y, x = np.meshgrid(*(np.arange(n) for n in (frames, height, width)), indexing="ij")
    x, y = x - dx * t, y - dy * t
    texture = np.sin(0.35 * x + 0.1 * y) + np.cos(0.3 * y - 0.12 * x) + 0.5 * np.sin(0.25 * (x + y))
    return texture.astype(np.float32)


@pytest.mark.parametrize(("dx", "dy"), [(0.7, -0.4), (-0.5, 0.0), (0.0, 0.8)])
def test_displacement_is_in_pixels_per_frame_and_the_flow_is_half_of_it(dx, dy):
    found = jax.jit(lambda w: optflow_jax.flow(w, alpha=1e-3))(moving(dx, dy))
    # Away from the borders, where pixels outside count as 0, and from the last frame. Differences
    # over a whole frame and over two pixels err by some percent; another unit would err by half.
    inside = (slice(0, -1), slice(6, -6), slice(6, -6))
    horizontal, vertical = found.displacement
    assert np.median(horizontal[inside]) == pytest.approx(dx, abs=0.06)
    assert np.median(vertical[inside]) == pytest.approx(dy, abs=0.06)
    np.testing.assert_array_equal(horizontal, 2 * found.u)
    np.testing.assert_array_equal(vertical, 2 * found.v)
    assert horizontal.shape == (4, 24, 28)
