"""The binary from flags to figures, on the embedded digits with a small network."""

import json
import pathlib
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cifar_resnet56, data
from experiments.models.resnet import BasicBlock, ResNet
from experiments.system.errors import UserError
from experiments.training.checkpoints import Checkpoints
from experiments.training.config import TrainConfig
from experiments.training.steps import initial_state

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = ("--dataset=digits", "--depth=8", "--epochs=0.2", "--evaluate_every=0.1")


def test_resnet56_has_the_parameters_of_the_paper():
    shapes = jax.eval_shape(
        lambda key: ResNet(depth=56).init(key, jnp.zeros((1, 32, 32, 3)), train=False),
        jax.random.key(0),
    )
    kernels = [
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes["params"])
        if path[-1].key == "kernel" and len(leaf.shape) == 4
    ]
    assert len(kernels) == 55 and len(set(kernels)) == 6
    # He et al., table 6: 0.85 million. By hand: 3x3 kernels, scale and bias, the dense layer.
    convolutions = 9 * (3 * 16 + 18 * 16**2 + 16 * 32 + 17 * 32**2 + 32 * 64 + 17 * 64**2)
    norms = 2 * (19 * 16 + 18 * 32 + 18 * 64)
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert total == convolutions + norms + 64 * 10 + 10
    assert round(total / 1e6, 2) == 0.85


def test_shortcut_takes_every_second_pixel_and_pads_channels():
    block = BasicBlock(filters=8, strides=2, dtype=jnp.float32)
    x = jax.random.uniform(jax.random.key(0), (1, 6, 6, 4))
    variables = jax.eval_shape(partial(block.init, train=False), jax.random.key(1), x)
    # With every parameter zero, and any statistics, only the shortcut is left.
    silent = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), variables["params"])
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), variables)
    out = block.apply({**variables, "params": silent}, x, train=False)
    np.testing.assert_array_equal(out[..., 2:6], x[:, ::2, ::2])
    np.testing.assert_array_equal(out[..., [0, 1, 6, 7]], 0)


def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32():
    model = ResNet(depth=8, dtype=jnp.bfloat16)

    def forward(key, images):
        variables = model.init(key, images, train=False)
        return variables, *model.apply(variables, images, train=True, mutable=["batch_stats"])

    variables, logits, updates = jax.eval_shape(
        forward, jax.random.key(0), jnp.ones((2, 32, 32, 3))
    )
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}


def test_trials_of_two_metrics_leave_everything(run_process, tmp_path):
    workdir = tmp_path / "w"
    arguments = (
        *SMALL, "--metric=l2,sobolev", "--trials=2", "--seed=4", f"--workdir={workdir}",
    )  # fmt: skip
    done = run_process("cifar_resnet56", "no", *arguments)
    assert done.returncode == 0, done.stderr
    summary = json.loads((workdir / "summary.json").read_text())
    assert {"dataset", "model", "runs", "images_per_second", "device", "wall_seconds"} <= set(
        summary
    )
    assert (summary["dataset"], summary["model"]) == ("digits", "resnet8")
    assert [run["metric"] for run in summary["runs"]] == ["l2", "sobolev"]
    test_size = len(data.load("digits", own="cifar10").test)
    for run in summary["runs"]:
        assert [t["seed"] for t in run["trials"]] == [4, 5]
        for trial in run["trials"]:
            assert trial["steps"] == 9
            count = trial["test_accuracy"] * test_size
            assert count == pytest.approx(round(count))  # a fraction of the whole test set
        values = [t["test_accuracy"] for t in run["trials"]]
        assert run["mean"] == pytest.approx(np.mean(values))
        assert run["std"] == pytest.approx(np.std(values, ddof=1)) and run["n"] == 2
    (comparison,) = summary["comparison"]
    assert (comparison["run"], comparison["baseline"], comparison["n"]) == ("sobolev", "l2", 2)

    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(x["run"], x["seed"], x["step"]) for x in lines] == [
        (run, seed, step) for run in ("l2", "sobolev") for seed in (4, 5) for step in (5, 9)
    ]
    config = json.loads((workdir / "config.json").read_text())
    assert config["settings"]["runs"]["sobolev"]["lam"] == 1.0
    assert config["environment"]["versions"]["jax"] == jax.__version__
    for name in ("accuracy.png", "loss.png"):
        assert (workdir / name).read_bytes().startswith(b"\x89PNG")
    assert list(workdir.glob("tensorboard/sobolev/seed_5/events*"))
    assert "error reduced" in done.stdout and str(workdir) in done.stdout

    assert run_process("cifar_resnet56", "no", *arguments, "--resume").returncode == 0
    again = json.loads((workdir / "summary.json").read_text())
    assert again["runs"] == summary["runs"]


def test_metrics_share_the_initialisation_of_a_seed():
    digits = data.load("digits", own="cifar10")
    states = []
    for metric in ("l2", "sobolev"):
        config = TrainConfig(dataset="digits", model="resnet8", metric=metric)
        states.append(initial_state(cifar_resnet56.build(config, digits, depth=8), 0))
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_non_finite_loss_stops_the_trial_and_keeps_the_last_good_checkpoint(
    run_process, tmp_path
):
    done = run_process(
        "cifar_resnet56", "no", *SMALL, "--schedule=step", "--learning_rate=1e30",
        "--checkpoint_every=1", f"--workdir={tmp_path}/w",
    )  # fmt: skip
    assert done.returncode == 1
    assert "training loss became nan" in done.stderr and "--learning_rate" in done.stderr
    summary = json.loads((tmp_path / "w/summary.json").read_text())
    assert "became nan" in summary["runs"][0]["trials"][0]["error"]
    digits = data.load("digits", own="cifar10")
    config = TrainConfig(dataset="digits", model="resnet8", batch_size=32)
    like = initial_state(cifar_resnet56.build(config, digits, depth=8), 0)
    kept, _ = Checkpoints(tmp_path / "w/checkpoints/l2/seed_0").restore(like)
    assert np.isfinite(kept.running.loss)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric=sobolef"], "--metric: got 'sobolef'; accepted are l2, "),
        (["--metric=sobolev", "--lam=-1"], "--lam: got -1.0"),
        (["--metric=reweighted_l2", "--form=equation", "--lam=0"], "--lam: got 0.0"),
        (["--batch_size=5000"], "--batch_size: got 5000, more than the 1437 training examples"),
        (["--preset=fast"], "--preset: got 'fast'; accepted are quick, paper"),
        (["--dataset=imagenet"], "--dataset: got 'imagenet'; accepted are auto, "),
        (["--trials=0"], "--trials: got 0"),
        (["--depth=9"], "--depth: got 9; accepted are 8, 14"),
        (["--metric=l2,l2"], "--metric: got l2 twice"),
        (["--resume"], "--resume: got no --workdir"),
        (["--workdir=/dev/null/w"], "--workdir: cannot write to /dev/null/w"),
    ],
)
def test_bad_flags(run_main, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        run_main("cifar_resnet56", "--dataset=digits", "--depth=8", *arguments)
    assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_an_error_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.cifar_resnet56", "--dataset=cifar10",
         f"--data_dir={tmp_path}/none"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "python -m experiments.prepare_data cifar10" in done.stderr


def test_a_full_disk_is_one_line_and_resuming_repairs_it(tmp_path, run_process):
    arguments = (*SMALL, f"--workdir={tmp_path}/w")
    full = run_process("cifar_resnet56", "full:3", *arguments)
    assert full.returncode == 1
    assert full.stderr.startswith("error: --workdir: no space left") and "--resume" in full.stderr
    assert "Traceback" not in full.stderr
    resumed = run_process("cifar_resnet56", "no", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads((tmp_path / "w/summary.json").read_text())["runs"][0]["n"] == 1
