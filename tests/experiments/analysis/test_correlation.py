"""The correlation command: what it writes for kernels whose correlation is known."""

import csv
import json
import pathlib
import re

import ml_dtypes
import numpy as np
import pytest
import scipy.stats

from experiments.analysis import correlation as command
from experiments.analysis import correlation_runs
from experiments.cli import main as cli_main
from experiments.figures import correlation as figures
from experiments.system.errors import ConfigError, UserError
from experiments.training.checkpoints import Checkpoints


def shared(shape, seed=0):
    """(h, w, in, out): half of each weight's variance is shared by all outputs."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(*shape[:-1], 1)) + rng.normal(size=shape)


KERNELS = {
    "first/kernel": shared((3, 3, 3, 12)),
    "second/kernel": shared((3, 3, 12, 16), 1),
    "third/kernel": np.random.default_rng(2).normal(size=(1, 1, 16, 10)),
}


@pytest.fixture
def run(tmp_path):
    def run(**given):
        values = {"out": tmp_path / "out", "max_distance": 8, "samples": 99} | given
        arguments = [f"--{name}={value}" for name, value in values.items()]
        cli_main.call(command.main, command.define, *arguments)
        return pathlib.Path(values["out"])

    return run


def test_numbers_table_and_figures_of_a_file(run, tmp_path, capsys):
    path = tmp_path / "net.npz"
    np.savez(path, **KERNELS, bias=np.ones(12), steps=np.ones((3, 3, 3), int))
    out = run(kernels=str(path))
    printed = capsys.readouterr().out
    assert "net.npz: 3 kernels, layout HWIO (guessed from the format)" in printed
    assert "left out: steps: dtype int64, no floating-point weights" in printed.splitlines()
    layers = json.loads((out / "correlation.json").read_text())
    assert list(layers) == list(KERNELS)
    for name, layer in layers.items():
        assert layer["shape"] == list(KERNELS[name].shape)
        outputs = min(8, KERNELS[name].shape[-1] - 1)
        inputs = min(8, KERNELS[name].shape[-2] - 1)
        assert (len(layer["output"]), len(layer["input"])) == (outputs, inputs)
    for name in ("first/kernel", "second/kernel"):
        np.testing.assert_allclose(layers[name]["output"], 0.5, atol=0.25)
        assert layers[name]["chance"]["output"]["p_value"] == 0.01
        assert layers[name]["chance"]["output"]["mean"] == pytest.approx(0.5, abs=0.1)
        assert abs(layers[name]["chance"]["input"]["mean"]) < 0.2
    assert layers["third/kernel"]["chance"]["output"]["p_value"] > 0.01
    for layer in layers.values():
        assert layer["constant"] < 0.05
    summary = json.loads((out / "summary.json").read_text())
    assert summary["summary"]["layers"] == 3
    assert summary["summary"]["output"]["significant"] >= 2
    assert summary["source"]["layout"] == "HWIO" and len(summary["source"]["sha256"]) == 64
    assert "versions" in summary["environment"]
    rows = list(csv.reader((out / "correlation.csv").read_text().splitlines()))
    assert [row[:2] for row in rows[1:]] == [
        ["first/kernel", "3x3x3x12"], ["second/kernel", "3x3x12x16"], ["third/kernel", "1x1x16x10"]
    ]  # fmt: skip
    for name in ("distance", "histogram", "kernel", "deviation"):
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not [p for p in out.iterdir() if p.name.startswith(".")]


def with_bad(value):
    kernel = KERNELS["first/kernel"].copy()
    kernel[0, 1, 2, 3] = value
    return kernel


# What a file may hold beside good kernels, and why it is left out.
BAD = {
    "nan": (with_bad(np.nan), "NaN or infinity"),
    "inf": (with_bad(-np.inf), "NaN or infinity"),
    "all nan": (np.full((3, 3, 4, 8), np.nan, np.float32), "NaN or infinity"),
    "too large": (with_bad(1e300), None),  # It can be analysed.
    "empty": (np.zeros((3, 3, 0, 8)), r"shape \(3, 3, 0, 8\)"),
    "complex": (np.ones((3, 3, 4, 8), complex), "dtype complex128"),
    "quantized": (np.ones((3, 3, 4, 8), np.int8), "dtype int8"),
    "pickled": (np.array([None]), "objects"),
}


def test_kernels_that_cannot_be_used_are_named_and_left_out(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "draw", lambda *_: None)
    good = {"first/kernel": KERNELS["first/kernel"].astype(ml_dtypes.bfloat16)}
    bad = {name: kernel for name, (kernel, _) in BAD.items()}
    np.savez(tmp_path / "net.npz", bias=np.ones(12), **good, **bad)
    out = run(kernels=str(tmp_path / "net.npz"), samples=9)
    assert list(json.loads((out / "correlation.json").read_text())) == ["first/kernel", "too large"]
    printed = capsys.readouterr().out
    assert "net.npz: 2 kernels, layout HWIO" in printed
    left_out = json.loads((out / "summary.json").read_text())["source"]["left_out"]
    reasons = {name: reason for name, (_, reason) in BAD.items() if reason}
    assert set(left_out) == set(reasons)
    for name, reason in reasons.items():
        assert re.search(reason, left_out[name]), left_out[name]
        assert re.search(rf"left out: .*\b{name}\b.*: .*{reason}", printed)
    with pytest.raises(ConfigError, match="^layer: got nan, which was left out: NaN or infinity; "):
        run(kernels=str(tmp_path / "net.npz"), layer="nan")
    del bad["too large"]
    np.savez(tmp_path / "bad.npz", **bad)
    with pytest.raises(
        UserError, match="^bad.npz: has no .*; left out: .*nan.*: NaN or inf"
    ) as told:
        run(kernels=str(tmp_path / "bad.npz"))
    assert "\n" not in str(told.value)


def test_a_trial_with_nan_is_named(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "draw", lambda *_: None)
    for seed in range(3):
        kernels = {"good": KERNELS["first/kernel"], "bad": with_bad(np.nan if seed == 1 else 1.0)}
        params = {name: {"kernel": kernel} for name, kernel in kernels.items()}
        folder = tmp_path / "w" / "checkpoints" / "l2" / f"seed_{seed}"
        Checkpoints(folder).save(5, {"state": {"params": params}})
    out = run(workdir=str(tmp_path / "w"), samples=9)
    runs = json.loads((out / "runs.json").read_text())
    assert np.isfinite(runs["l2"]["output"]["trials"]).all()
    said = "left out: l2, seed 1, bad/kernel: NaN or infinity"
    assert said in capsys.readouterr().out.splitlines()
    assert np.isfinite(
        json.loads((out / "correlation.json").read_text())["bad/kernel"]["output"]
    ).all()


def test_layouts_give_the_same_numbers(tmp_path):
    np.savez(tmp_path / "flax.npz", w=KERNELS["second/kernel"])
    np.savez(tmp_path / "torch.npz", w=KERNELS["second/kernel"].transpose(3, 2, 0, 1))
    flax, layout, _ = command.read_kernels(tmp_path / "flax.npz", "auto")
    assert layout == "HWIO"
    torch, layout, _ = command.read_kernels(tmp_path / "torch.npz", "OIHW")
    assert layout == "OIHW"
    np.testing.assert_array_equal(flax["w"], torch["w"])
    with pytest.raises(ConfigError, match="^layout: got NCHW; accepted: auto, HWIO, OIHW"):
        command.read_kernels(tmp_path / "flax.npz", "NCHW")
    with pytest.raises(ConfigError, match="^kernels: got .*w.pth; accepted: a file that ends with"):
        command.read_kernels(tmp_path / "w.pth", "auto")
    with pytest.raises(ConfigError, match="^layout: got HWIO; accepted: auto or OIHW, which"):
        command.read_kernels(tmp_path / "w.onnx", "HWIO")


def test_a_workdir_is_read_by_run_and_seed(run, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "draw", lambda *_: None)  # Another test looks at the figures.
    workdir = tmp_path / "w"
    for name, seed, scale in (("sobolev", 0, 1.0), ("l2", 3, 2.0), ("l2", 12, 3.0)):
        params = {"Conv_0": {"kernel": scale * KERNELS["first/kernel"], "bias": np.ones(12)}}
        folder = workdir / "checkpoints" / name / f"seed_{seed}"
        Checkpoints(folder).save(5, {"state": {"params": params}, "step": np.array(5)})
    gan = {"generator": {"params": {"Conv_0": {"kernel": KERNELS["second/kernel"]}}}}
    Checkpoints(tmp_path / "g" / "checkpoints" / "l2" / "seed_0").save(1, {"state": gan})

    read = command.read_workdir
    assert list(read(workdir)) == ["Conv_0/kernel"]
    for arguments, scale in (((), 2.0), (("l2", 12), 3.0), (("sobolev",), 1.0)):
        found = read(workdir, *arguments)["Conv_0/kernel"]
        np.testing.assert_array_equal(found, scale * KERNELS["first/kernel"])
    assert list(read(tmp_path / "g")) == ["generator/Conv_0/kernel"]
    with pytest.raises(ConfigError, match="^run: got adam; accepted: l2, sobolev"):
        read(workdir, "adam")
    with pytest.raises(ConfigError, match="^seed: got 4; accepted: 3, 12"):
        read(workdir, "l2", 4)
    with pytest.raises(ConfigError, match="^workdir: got .*none; accepted: a folder that a train"):
        read(tmp_path / "none")
    (workdir / "checkpoints" / "empty" / "seed_0").mkdir(parents=True)
    with pytest.raises(ConfigError, match="^workdir: got .*; accepted: a trial with a checkpoint"):
        read(workdir, "empty")
    out = run(workdir=str(workdir), run="l2")
    assert list(json.loads((out / "correlation.json").read_text())) == ["Conv_0/kernel"]


def test_all_trials_of_a_study_are_compared(run, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "draw", lambda *_: None)
    workdir, independent = tmp_path / "w", np.random.default_rng(5)
    for name in ("l2", "sobolev"):
        for seed in range(4):
            noise = independent.normal(size=(3, 3, 6, 9))
            kernel = shared((3, 3, 6, 9), 10 + seed) if name == "sobolev" else noise
            params = {
                "a": {"kernel": kernel},
                "b": {"kernel": independent.normal(size=(1, 1, 6, 1))},
            }
            folder = workdir / "checkpoints" / name / f"seed_{seed}"
            Checkpoints(folder).save(5, {"state": {"params": params}})
    runs = json.loads((run(workdir=str(workdir), max_distance=12) / "runs.json").read_text())
    assert {name: run["seeds"] for name, run in runs.items()} == {
        "l2": [0, 1, 2, 3], "sobolev": [0, 1, 2, 3],
    }  # fmt: skip
    output = {name: run["output"] for name, run in runs.items()}
    # Of 9 output channels none are farther apart than 8; half of each variance is shared.
    assert output["sobolev"]["mean"][8:] == [None] * 4 == output["l2"]["half_interval"][8:]
    np.testing.assert_allclose(output["sobolev"]["mean"][:7], 0.5, atol=0.15)
    np.testing.assert_allclose(output["l2"]["mean"][:7], 0, atol=0.15)
    first = np.array(output["sobolev"]["trials"])[:, 0].astype(float)
    assert output["sobolev"]["mean"][0] == pytest.approx(first.mean())
    quantile = scipy.stats.t.ppf(0.975, 3)
    assert output["sobolev"]["half_interval"][0] == pytest.approx(quantile * first.std(ddof=1) / 2)
    assert (tmp_path / "out" / "runs.png").stat().st_size > 1000
    # One layer has a single output channel, and both have six inputs.
    kernels = [np.ones((1, 1, 6, 1)), np.full((1, 1, 6, 2), 2.0)]
    mean = correlation_runs.mean_over_layers(kernels, "input", 8)
    np.testing.assert_allclose(mean, [*[1.0] * 5, *[np.nan] * 3])


def test_kernels_of_one_channel_have_one_direction(run, tmp_path):
    path = tmp_path / "net.npz"
    grey, one = np.random.default_rng(0).normal(size=(2, 3, 3, 6))
    np.savez(path, grey=grey[:, :, None], one=one[..., None], none=one[:, :, 0, None, None])
    out = run(kernels=str(path))
    layers = json.loads((out / "correlation.json").read_text())
    assert set(layers) == {"grey", "one"}
    assert layers["grey"]["input"] == [] and len(layers["grey"]["output"]) == 5
    assert layers["one"]["output"] == [] and len(layers["one"]["input"]) == 5
    summary = json.loads((out / "summary.json").read_text())["summary"]
    assert summary["layers"] == 0 and summary["wilcoxon_p_value"] is None


def test_what_is_refused(run, tmp_path):
    np.savez(tmp_path / "empty.npz", bias=np.ones(3))
    np.savez(tmp_path / "net.npz", **KERNELS)
    with pytest.raises(UserError, match="^--kernels, --workdir: got both or none; accepted: one"):
        run()
    with pytest.raises(UserError, match="has no convolution kernel with two channels or more"):
        run(kernels=str(tmp_path / "empty.npz"))
    with pytest.raises(ConfigError, match="^layer: got x; accepted: first/kernel, second/kernel"):
        run(kernels=str(tmp_path / "net.npz"), layer="x")
    assert not (tmp_path / "out").exists()


def test_the_figure_against_distance_holds_the_numbers():
    chance = {d: {"low": [-0.1, -0.1], "high": [0.1, 0.1]} for d in command.AXES}
    layers = {
        "a": {"output": [0.5, 0.25], "input": [0.0, 0.1], "chance": chance},
        "b": {"output": [0.25], "input": [], "chance": chance},
    }
    figure = figures.by_distance(layers, "title")
    output, inputs = figure.axes
    mean = next(line for line in output.get_lines() if line.get_label() == "mean of 2 layers")
    np.testing.assert_allclose(mean.get_ydata(), [0.375, 0.25])
    np.testing.assert_array_equal(mean.get_xdata(), [1, 2])
    assert any(line.get_label() == "mean of 1 layers" for line in inputs.get_lines())


def test_the_histogram_of_chance_is_symmetric_and_the_kernel_has_a_row_for_each_output():
    densities = {d: np.array([0.0, 1.0, 3.0, 0.0]) for d in command.AXES}
    figure = figures.histograms(densities, np.linspace(-1, 1, 5), dict.fromkeys(densities, 0.2), "")
    found, symmetric = figure.axes[0].patches
    np.testing.assert_array_equal(found.get_data().values, [0, 1, 3, 0])
    np.testing.assert_array_equal(symmetric.get_data().values, [0, 2, 2, 0])
    kernel = np.arange(24.0).reshape(4, 3, 2, 1)
    picture = figures.kernel_picture(kernel, "").axes[0].images[0].get_array()
    np.testing.assert_array_equal(picture, kernel.reshape(4, 6))
