"""Trials side by side on several devices: the same bits as one after another."""

import json
import threading

import jax
import numpy as np
import pytest

from experiments.system import interrupt
from experiments.system.errors import ConfigError, UserError
from experiments.training import devices
from experiments.training.checkpoints import read_latest
from experiments.training.config import Length
from experiments.training.sharding import BatchSharding
from experiments.training.study import Run, train
from tests.experiments.small import Small, classifier, random_dataset

SETTINGS = {"batch_size": 5, "epochs": 2.0, "evaluate_every": 1.0, "rate": 0.1}


def build(config, dataset):
    length = Length(**{k: v for k, v in config.items() if k != "rate"})
    return classifier(Small(), dataset, config["rate"]), length


def study(folder, **options):
    runs = [Run("slow", SETTINGS | {"rate": 0.01}), Run("fast", SETTINGS)]
    return train(
        "mine", runs, random_dataset(), build, workdir=folder, seeds=range(3),
        notice=lambda text: None, **options,
    )  # fmt: skip


def results(folder):
    trees = {
        f"{path.parent.name}/{path.name}": jax.tree.leaves(read_latest(path))
        for path in sorted(folder.glob("checkpoints/*/seed_*"))
    }
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    return trees, sorted(lines, key=lambda line: (line["run"], line["seed"], line["step"]))


def test_side_by_side_and_in_turn_end_with_the_same_bits(tmp_path):
    in_turn = study(tmp_path / "a")
    spread = study(tmp_path / "b", devices=jax.devices()[:3])
    (trees, lines), (others, other_lines) = results(tmp_path / "a"), results(tmp_path / "b")
    assert lines == other_lines and list(trees) == list(others) and len(trees) == 6
    for name, tree in trees.items():
        for a, b in zip(tree, others[name], strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(in_turn["runs"], spread["runs"], strict=True):
        assert [t["seed"] for t in b["trials"]] == [0, 1, 2]
        assert a["mean"] == b["mean"]


def test_jobs_are_done_once_each_on_every_device():
    used = {}
    barrier = threading.Barrier(3)  # Three jobs are under way at the same time.

    def work(job):
        if job < 3:
            barrier.wait(timeout=60)
        used[job] = jax.numpy.zeros(1).device
        return job**2

    done = dict(devices.spread(range(7), work, jax.devices()[:3]))
    assert done == {job: job**2 for job in range(7)}
    assert {used[job] for job in range(3)} == set(jax.devices()[:3])


def test_an_error_ends_the_other_threads_at_their_next_step():
    started = threading.Event()
    ended = []

    def work(job):
        if job == "wrong":
            assert started.wait(timeout=60)
            raise UserError("workdir: gone")
        started.set()
        try:
            while True:
                interrupt.raise_if_pending()
        finally:
            ended.append(job)

    with pytest.raises(UserError, match="^workdir: gone"):
        list(devices.spread(["long", "wrong", "never"], work, jax.devices()[:2]))
    assert ended == ["long"]
    assert not [t for t in threading.enumerate() if t.name.startswith("trials on")]


def test_a_study_with_the_batch_divided(tmp_path):
    shared = study(tmp_path / "a", sharding=BatchSharding.over(jax.devices()[:5], "local"))
    record = json.loads((tmp_path / "a" / "config.json").read_text())["settings"]["runs"]["fast"]
    assert (record["batch_statistics"], record["batch_parts"]) == ("local", 5)
    assert all("error" not in t for run in shared["runs"] for t in run["trials"])
    # Local statistics make other numbers, so it is another study.
    with pytest.raises(UserError, match="batch_statistics: local there, None asked for"):
        study(tmp_path / "a", resume=True)


@pytest.mark.parametrize("text", ["0", "9", "-1", "many", ""])
def test_devices_that_are_not_there(text):
    with pytest.raises(ConfigError, match="^devices: got .*; accepted: all, or 1 to 8"):
        devices.choose(text)
    assert devices.choose("all") == jax.devices() and devices.choose("2") == jax.devices()[:2]
