"""Checkpoints: what was saved comes back to the bit, and damage is noticed."""

import os
import shutil

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from experiments.system.errors import ConfigError, SaveError, UserError
from experiments.training.checkpoints import Checkpoints, read_latest, require_savable
from experiments.training.networks import Network
from experiments.training.state import TrainState


def state(value):
    params = {"conv": {"kernel": jnp.full((3, 3, 2, 4), value)}, "b": jnp.float32(value)}
    optimizer = optax.chain(optax.identity(), optax.sgd(0.1, momentum=0.9))
    network = Network(
        params=params,
        collections={"batch_stats": {"mean": jnp.linspace(0, value, 7)}},
        opt_state=optimizer.init(params),
        norms=jnp.array([value, jnp.nan, jnp.inf]),
    )
    return TrainState(step=jnp.int32(value), state=network, sums={"loss": jnp.float32(0)})


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()
        assert np.asarray(x).dtype == np.asarray(y).dtype


def test_round_trip_and_two_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.restore(state(0.0)) is None
    for step in (10, 20, 30):
        checkpoints.save(step, state(float(step)), best={"step": step})
    assert checkpoints.steps() == [20, 30]
    restored, extra = checkpoints.restore(state(0.0))
    assert_same_bits(restored, state(30.0))
    assert extra["best"] == {"step": 30}
    with pytest.raises(SaveError, match="checkpoint .*/25 was not saved whole"):
        checkpoints.save(25, state(25.0))  # Orbax saves nothing before the newest step, silently.
    assert checkpoints.steps() == [20, 30]
    checkpoints.discard_after(20)
    assert checkpoints.steps() == [20]
    checkpoints.save(25, state(25.0))
    assert checkpoints.steps() == [20, 25]


def test_looking_at_a_checkpoint_changes_nothing_and_notices_damage(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_latest(tmp_path / "nowhere")
    checkpoints = Checkpoints(tmp_path / "c")
    for step in (9, 10):
        checkpoints.save(step, state(float(step)))
    (tmp_path / "c" / "11.orbax-checkpoint-tmp").mkdir()  # A run that is saving.
    tree = read_latest(tmp_path / "c")
    assert_same_bits(tree, flax.serialization.to_state_dict(state(10.0)))
    assert {p.name for p in (tmp_path / "c").iterdir()} >= {"9", "10", "11.orbax-checkpoint-tmp"}
    # Readable, but not what was saved: only the digest tells.
    shutil.rmtree(tmp_path / "c" / "10" / "state")
    shutil.copytree(tmp_path / "c" / "9" / "state", tmp_path / "c" / "10" / "state")
    with pytest.raises(ValueError, match="10 is damaged: its digest is wrong"):
        read_latest(tmp_path / "c")
    os.truncate(largest(tmp_path / "c" / "10" / "state"), 10)
    with pytest.raises(ValueError, match="10 is damaged"):
        read_latest(tmp_path / "c")


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_a_byte(largest(folder / "state")),
        lambda folder: os.truncate(largest(folder / "state"), 10),
        lambda folder: [p.unlink() for p in (folder / "extra").rglob("*") if p.is_file()],
    ],
    ids=["flipped byte", "truncated", "missing file"],
)
def test_corrupt_checkpoint_falls_back_and_says_so(tmp_path, damage):
    said = []
    checkpoints = Checkpoints(tmp_path / "c", notice=said.append)
    checkpoints.save(1, state(1.0))
    checkpoints.save(2, state(2.0))
    damage(tmp_path / "c" / "2")
    restored, _ = checkpoints.restore(state(0.0))
    assert_same_bits(restored, state(1.0))
    assert len(said) == 1 and "corrupt" in said[0] and str(tmp_path / "c" / "2") in said[0]
    checkpoints.save(2, state(5.0))  # The place is free again.
    assert_same_bits(checkpoints.restore(state(0.0))[0], state(5.0))


def test_without_a_checkpoint_no_folder_is_made(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.steps() == [] and checkpoints.restore(state(0.0)) is None
    checkpoints.discard_after(0)
    assert not (tmp_path / "c").exists()
    checkpoints.save(5, state(5.0))
    checkpoints.discard_after(4)
    assert not (tmp_path / "c").exists()


def test_where_every_checkpoint_is_damaged_it_says_that_it_starts_from_step_0(tmp_path):
    said = []
    checkpoints = Checkpoints(tmp_path / "c", notice=said.append)
    for step in (1, 2):
        checkpoints.save(step, state(float(step)))
        flip_a_byte(largest(tmp_path / "c" / str(step) / "state"))
    assert checkpoints.restore(state(0.0)) is None
    assert "the one before it" in said[0] and said[1].endswith("starting from step 0")


@pytest.mark.parametrize("change", [{"seed": 4}, {"settings": {"lam": 2.0}}, {"dataset": "other"}])
def test_a_checkpoint_of_another_run_is_refused_and_kept(tmp_path, change):
    identity = {"seed": 3, "settings": {"lam": 1.0}, "dataset": "digits"}
    Checkpoints(tmp_path / "c", identity).save(1, state(1.0))
    other = Checkpoints(tmp_path / "c", identity | change)
    with pytest.raises(UserError, match=f"another run .*{next(iter(change))}.* there, .* asked"):
        other.restore(state(0.0))
    assert other.steps() == [1]


def test_a_changed_record_beside_the_state_is_noticed(tmp_path):
    said = []
    checkpoints = Checkpoints(tmp_path / "c", {"seed": 3}, said.append)
    checkpoints.save(1, state(1.0), best={"score": 0.25})
    (record,) = [p for p in (tmp_path / "c/1/extra").rglob("*") if b"0.25" in p.read_bytes()]
    record.write_bytes(record.read_bytes().replace(b"0.25", b"0.75"))
    assert checkpoints.restore(state(0.0)) is None and "corrupt" in said[0]


# Orbax's threads go on to speak of a closed event loop; commands silence that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "state/manifest.ocdbt").unlink(),
        lambda folder: os.truncate(folder / "state/manifest.ocdbt", 20),
        lambda folder: [path.unlink() for path in (folder / "state/d").iterdir()],
        lambda folder: shutil.rmtree(folder / "state"),
        lambda folder: flip_a_byte(folder / "extra/metadata"),
        lambda folder: shutil.rmtree(folder),
        # A store that is whole and holds another, smaller state.
        lambda folder: (
            shutil.rmtree(folder / "state"),
            shutil.copytree(folder.parents[1] / "small/1/state", folder / "state"),
        ),
    ],
    ids=["manifest", "cut", "nodes", "state", "record", "all", "fewer"],
)
def test_a_broken_save_is_told_when_it_happens_and_the_one_before_stays(
    tmp_path, monkeypatch, damage
):
    Checkpoints(tmp_path / "small").save(1, {"step": np.array(1)})
    checkpoints = Checkpoints(tmp_path / "c", notice=lambda line: None)
    checkpoints.save(1, state(1.0))
    save = ocp.CheckpointManager.save

    def broken(self, step, **options):
        save(self, step, **options)
        damage(tmp_path / "c" / str(step))

    monkeypatch.setattr(ocp.CheckpointManager, "save", broken)
    with pytest.raises(SaveError, match="checkpoint .*/c/2 was not saved whole"):
        checkpoints.save(2, state(2.0))
    monkeypatch.undo()
    assert_same_bits(checkpoints.restore(state(0.0))[0], state(1.0))


def test_a_folder_with_other_unusual_names_holds_checkpoints(tmp_path):
    folder = tmp_path / "a b/ü→%20/{x}/a*b?c]/#$&'\"+s3:"
    (folder / ".checkpoint/0").mkdir(parents=True)  # What a killed process left.
    require_savable(folder)
    Checkpoints(folder / "c").save(1, state(1.0))
    assert_same_bits(Checkpoints(folder / "c").restore(state(0.0))[0], state(1.0))
    assert [path.name for path in folder.iterdir()] == ["c"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "place", ["[exp 1]", "[0-9]/w", "back\\slash", "gs:", "gs:/w", os.fsdecode(b"\xff")]
)
def test_a_folder_is_refused_where_no_checkpoint_comes_back(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"^workdir: got .*Orbax.*; accepted: a folder"):
        require_savable(folder)
    assert set(tmp_path.rglob("*")) <= {folder, folder.parent}
