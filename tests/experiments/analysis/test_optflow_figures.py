"""The figures of the OptFlow paper: their numbers, and that they are written."""

import json

import jax
import jax.numpy as jnp
import numpy as np

from experiments.analysis import optflow_figures
from experiments.cli import main as command


def test_figures_are_written_with_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(optflow_figures, "STEPPED", 30)
    monkeypatch.setattr(optflow_figures, "SCALED", 10)
    monkeypatch.setattr(optflow_figures, "SIZES", (3, 4))
    monkeypatch.setattr(optflow_figures, "LARGE_PIXELS", 27)
    monkeypatch.setattr(optflow_figures, "TURNS", 1)
    # Figures 1 and 3 draw what the tests of optflow_jax compute.
    arguments = (f"--out={tmp_path}/new", "--figures=2,4,5,scale")
    command.call(optflow_figures.main, optflow_figures.define, *arguments)
    names = ["figure2", "figure4", "figure5", "figure_scale"]
    for name in names:
        assert (tmp_path / f"new/{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"new/{name}.pdf").read_bytes().startswith(b"%PDF")
    numbers = json.loads((tmp_path / "new/figures.json").read_text())
    assert set(numbers) == {"environment", *names}
    # Figure 2 of the paper prints 235 and 80, and filters of the same norm.
    assert [int(cost) for cost in numbers["figure2"]["costs"]] == [235, 80]
    np.testing.assert_allclose(*numbers["figure2"]["norms"], rtol=0.01)
    # Figure 4: the cost falls much, the norm little.
    cost, norm = (np.median(numbers["figure4"][f"relative_{k}"], axis=1) for k in ("cost", "norm"))
    assert np.all(np.diff(cost[:3]) < 0) and np.all(cost[:3] < norm[:3])
    growth = numbers["figure5"]
    assert growth["pixels"] == [27, 64]
    exponent = np.log(growth["seconds"][1] / growth["seconds"][0]) / np.log(64 / 27)
    np.testing.assert_allclose(growth["local_exponents"], [exponent], atol=1e-5)
    assert f"From 27 to 64 pixels it is {exponent:.2f} (ours)" in growth["caption"]


def test_share_explained_is_none_for_tiny_weights_and_all_for_huge_ones():
    w = np.random.default_rng(0).normal(size=(3, 4, 5, 5))
    with jax.enable_x64(True):
        none, some, most = (
            optflow_figures.explained(jnp.asarray(scale * w), 1.0) for scale in (1e-4, 1.0, 1e4)
        )
        same = optflow_figures.explained(jnp.asarray(10 * w), 100.0)
    assert none.shape == (3,) and np.all(none >= 0) and np.all(none < 1e-6)
    assert np.all(most > 0.99)
    # R(s W; s^2 alpha) = s^2 R(W; alpha), and the cost of no flow scales in the same way.
    np.testing.assert_allclose(same, some, rtol=1e-9)
