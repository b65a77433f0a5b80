"""The figure of the metrics: every metric is visible, and nothing is overwritten by default."""

import jax.numpy as jnp
import numpy as np

from experiments.analysis import metric_figures
from experiments.cli import main as command
from experiments.figures import metric_figures as figures


def gradient():
    values = np.random.default_rng(0).normal(size=(3, 3, 1, metric_figures.CHANNELS))
    return jnp.asarray(values, jnp.float32)


def test_the_figure_is_written_into_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(metric_figures, "first_gradient", gradient)
    command.call(metric_figures.main, metric_figures.define)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {"figures/metrics/metrics.png", "figures/metrics/metrics.pdf"}


def test_every_metric_has_a_panel_and_kernels_on_top_of_each_other_are_told_apart():
    n = 8
    flat = np.full(n, 1 / n)
    names = list(metric_figures.METRICS)
    kernels = dict.fromkeys(names, flat)  # the worst case: all curves coincide
    lines = {name: np.full(n, i + 1.0) for i, name in enumerate(names)}
    figure = figures.metrics(kernels, lines)
    whole, enlarged, *panels = figure.axes
    looks = [(c.get_linewidth(), c.get_linestyle(), c.get_alpha()) for c in whole.lines]
    assert [c.get_label() for c in whole.lines] == names
    reweighted = names.index("re-weighted L2")
    assert looks[reweighted][0] > 2 * max(
        w for w, *_ in looks[:reweighted] + looks[reweighted + 1 :]
    )
    low, high = enlarged.get_ylim()
    assert low < 1 < high and high - low < 0.5
    assert [axis.get_title() for axis in panels] == names[1:]
    for i, axis in enumerate(panels, start=2):
        behind, line = axis.lines
        np.testing.assert_allclose(behind.get_ydata(), 1)
        np.testing.assert_allclose(line.get_ydata(), i)
