"""A run that is killed and resumed ends with the bits of a run that was not."""

import json
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

# A small network: training/test_any_task.py kills one with batch statistics. Two evaluations, 44
# steps in an epoch, and checkpoints that fall between evaluations.
COMMAND = "tests.experiments.tiny"
FLAGS = (
    *("--dataset=digits", "--batch_size=32", "--metric=learned", "--root_every=7"),
    *("--epochs=0.6", "--evaluate_every=0.3", "--checkpoint_every=5"),
)


def results(workdir):
    """The last checkpoint's arrays and the lines of metrics, without the times."""
    folder = workdir / "checkpoints" / "learned" / "seed_0"
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    with ocp.StandardCheckpointer() as checkpointer:
        tree = jax.device_get(checkpointer.restore(folder / str(step) / "state"))
    lines = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["images_per_second"]
    (trial,) = json.loads((workdir / "summary.json").read_text())["runs"][0]["trials"]
    del trial["images_per_second"]
    return tree, lines, trial


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run_process):
    workdir = tmp_path_factory.mktemp("whole")
    done = run_process(COMMAND, "no", *FLAGS, f"--workdir={workdir}")
    assert done.returncode == 0, done.stderr
    return results(workdir)


@pytest.mark.parametrize(
    "kill", ["kill_step:17", "kill_save:3"], ids=["mid-epoch", "mid-checkpoint"]
)
def test_killed_and_resumed_is_the_same_to_the_bit(kill, uninterrupted, tmp_path, run_process):
    arguments = (*FLAGS, f"--workdir={tmp_path}/w")
    killed = run_process(COMMAND, kill, *arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "w/summary.json").exists()

    resumed = run_process(COMMAND, "no", *arguments, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    saved = {"kill_step:17": 15, "kill_save:3": 10}[kill]
    assert f"going on from step {saved} of 26" in resumed.stdout

    tree, lines, trial = results(tmp_path / "w")
    expected_tree, expected_lines, expected_trial = uninterrupted
    assert jax.tree.structure(tree) == jax.tree.structure(expected_tree)
    paths = jax.tree_util.tree_leaves_with_path(tree)
    assert {"step", "state", "sums"} == {p[0][0].key for p in paths}
    for (path, a), b in zip(paths, jax.tree.leaves(expected_tree), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), path
    assert lines == expected_lines
    assert [line["step"] for line in lines] == [14, 26]
    assert trial == expected_trial
