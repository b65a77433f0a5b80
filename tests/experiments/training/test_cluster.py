"""A study through a Ray cluster of two nodes: the bits of one process, whatever happens."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
import threading

import jax
import numpy as np
import pytest

from experiments.system.errors import ConfigError, UserError
from experiments.system.progress import Progress
from experiments.training import cluster
from experiments.training.checkpoints import read_latest
from experiments.training.cluster import forks_without_a_warning
from experiments.training.config import Length
from experiments.training.loop import CheckpointPolicy
from experiments.training.study import Run, train
from tests.experiments.small import Small, classifier, random_dataset

LENGTH = {"batch_size": 5, "epochs": 3.0, "evaluate_every": 1.0}
CONFIG = LENGTH | {"rate": 0.1}


@pytest.fixture(scope="module")
def address():
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'channelflow[cluster]'")
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(pathlib.Path(__file__).resolve().parents[3])
    os.environ["RAY_worker_niceness"] = "0"  # Else anything beside it starves the workers.
    with forks_without_a_warning():
        nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        nodes.add_node(num_cpus=1)
    yield nodes.address
    nodes.shutdown()
    del os.environ["PYTHONPATH"]
    if before is not None:
        os.environ["PYTHONPATH"] = before


def build(config, dataset):
    """A task that kills its worker at the seventh step, the first time."""
    marker = pathlib.Path(config.get("kill") or os.devnull)
    in_worker = os.getpid() != config.get("driver")
    if config.get("kill") and in_worker and not marker.exists():
        update, left = Progress.update, [7]

        def counted(self, done):
            update(self, done)
            left[0] -= 1
            if not left[0]:
                marker.write_text("killed")
                os.kill(os.getpid(), signal.SIGKILL)

        Progress.update = counted
    length = Length(**{name: config[name] for name in LENGTH})
    return classifier(Small(), dataset, config["rate"]), length


def study(folder, runs, seeds, **options):
    return train(
        "mine", runs, random_dataset(), build, workdir=folder, seeds=seeds,
        policy=CheckpointPolicy(steps=2), notice=lambda text: None, **options,
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


def test_a_study_whose_worker_is_killed_ends_with_the_same_bits(address, tmp_path):
    marker = tmp_path / "marker"
    alone = study(tmp_path / "a", [Run("one", CONFIG | {"kill": None})], [0, 1])
    # One worker is killed in mid-trial. What it did before stays.
    runs = [Run("one", CONFIG | {"kill": str(marker), "driver": os.getpid()})]
    spread = study(tmp_path / "b", runs, [0, 1], cluster=address)
    assert marker.read_text() == "killed"
    (trees, lines), (others, other_lines) = results(tmp_path / "a"), results(tmp_path / "b")
    assert lines == other_lines and list(trees) == list(others) and len(trees) == 2
    for name, tree in trees.items():
        for a, b in zip(tree, others[name], strict=True):
            np.testing.assert_array_equal(a, b)
    assert spread["runs"][0]["mean"] == alone["runs"][0]["mean"]


def test_a_trial_that_diverges_is_recorded_and_the_others_end(address, tmp_path):
    runs = [Run("wild", CONFIG | {"rate": 1e38}), Run("tame", CONFIG)]
    summary = study(tmp_path / "w", runs, [0], cluster=address)
    wild, tame = (run["trials"][0] for run in summary["runs"])
    assert "became" in wild["error"] and "error" not in tame
    assert [run["n"] for run in summary["runs"]] == [0, 1]


def test_a_wrong_setting_is_told_as_it_is_without_a_cluster(address, tmp_path):
    study(tmp_path / "w", [Run("one", CONFIG)], [0])
    (tmp_path / "w" / "summary.json").unlink()
    (tmp_path / "w" / "config.json").unlink()
    with pytest.raises(UserError, match=r"^workdir: checkpoint .* settings\.rate: 0\.1 there"):
        study(
            tmp_path / "w", [Run("one", CONFIG | {"rate": 0.2})], [0], cluster=address, resume=True
        )


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"^cluster: got auto; .* 'channelflow\[cluster\]'"):
        study(tmp_path / "w", [Run("one", CONFIG)], [0], cluster="auto")


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 400 Bad\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_what_listens_at_the_address_and_is_not_ray_is_told_at_once(monkeypatch, answer):
    """Ray itself waits for 200 seconds, and its native code writes a line every few of them."""
    ray = pytest.importorskip("ray", reason="pip install 'channelflow[cluster]'")
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was asked"))
    monkeypatch.setattr(cluster, "WAIT", 0.3)
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]

    def serve():
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            if answer is not None:
                connection.sendall(answer)
                connection.close()
            else:
                connection.recv(1000)
                connection.recv(1000)  # Nothing comes: the other side gives up.
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with pytest.raises(
        ConfigError, match=rf"^cluster: got 127.0.0.1:{port} \(.*; accepted: auto, or"
    ):
        cluster.Cluster(f"127.0.0.1:{port}").__enter__()
    server.close()
    thread.join()
    # Nobody listens any more; Ray takes the address of "auto" from the environment.
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match=rf"^cluster: got auto \(RAY_ADDRESS=127.0.0.1:{port}: "):
        cluster.Cluster().__enter__()
    for address in ("nowhere.invalid:1", "127.0.0.1:99999", "a..b:1", "[::1]:1", "ray://[::1]:1"):
        with pytest.raises(ConfigError, match="^cluster: got "):
            cluster.Cluster(address).__enter__()


def test_an_address_without_a_cluster_is_told(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'channelflow[cluster]'")
    with pytest.raises(ConfigError, match=r"^cluster: got nowhere \("):
        study(tmp_path / "w", [Run("one", CONFIG)], [0], cluster="nowhere")
