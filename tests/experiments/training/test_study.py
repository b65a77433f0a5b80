"""A study's folder: tied to its settings, repaired where it was damaged, enlarged on request."""

import json
import shutil

import pytest

from experiments.cli import main as command
from experiments.data import tfrecord
from experiments.system.errors import UserError
from tests.experiments.training import autoencoder

FLAGS = ("--dataset=digits", "--epochs=0.3", "--evaluate_every=0.1")


def run(workdir, *arguments):
    experiment = autoencoder.EXPERIMENT
    flags = (*FLAGS, f"--workdir={workdir}", *arguments)
    return command.call(experiment.main, experiment.define, *flags)


def lines(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def points(workdir, run="baseline"):
    """(name, step) of every point in TensorBoard's files, in order."""
    from tensorboardX.proto import event_pb2

    events = [
        event_pb2.Event.FromString(data)
        for path in sorted(workdir.glob(f"tensorboard/{run}/seed_0/events*"))
        for data in tfrecord.records(path)
    ]
    return sorted((value.tag, event.step) for event in events for value in event.summary.value)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("study") / "w"
    return workdir, run(workdir)


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of a finished study that a test may damage, and its summary."""
    shutil.copytree(finished[0], tmp_path / "w")
    return tmp_path / "w", finished[1]


def rows(summary):
    return [
        {key: value for key, value in trial.items() if key != "images_per_second"}
        for study_run in summary["runs"]
        for trial in study_run["trials"]
    ]


def test_tensorboard_has_the_points_of_metrics_jsonl(finished):
    workdir, _ = finished
    expected = [
        (name, line["step"])
        for line in lines(workdir)
        for name, value in line.items()
        if name not in ("run", "seed", "step") and value is not None
    ]
    assert points(workdir) == sorted(expected) and len(lines(workdir)) == 3


def test_a_deleted_config_does_not_open_the_door_to_other_settings(copied):
    workdir, summary = copied
    (workdir / "config.json").unlink()
    (workdir / "summary.json").unlink()
    with pytest.raises(UserError, match="holds results but no config.json"):
        run(workdir, "--rate=0.5")
    with pytest.raises(UserError, match=r"settings\.rate: 0\.001 there, 0\.5 asked for"):
        run(workdir, "--rate=0.5", "--resume")
    assert not (workdir / "config.json").exists()  # A refused attempt leaves nothing.
    assert rows(run(workdir, "--resume")) == rows(summary)


def test_a_row_of_other_settings_is_refused(copied):
    workdir, _ = copied
    text = (workdir / "summary.json").read_text()
    (workdir / "summary.json").write_text(text.replace('"identity": "', '"identity": "0'))
    with pytest.raises(UserError, match="summary.json holds a trial of baseline, seed 0, of other"):
        run(workdir, "--resume")


@pytest.mark.parametrize("damage", ["", "[]", "null", '{"runs": 3}', "\x00", None])
def test_a_damaged_summary_is_made_again_without_training(copied, damage, capsys):
    workdir, summary = copied
    path = workdir / "summary.json"
    path.unlink()
    if damage is None:
        path.mkdir()
    else:
        path.write_text(damage)
    assert rows(run(workdir, "--resume")) == rows(summary)
    said = capsys.readouterr().out
    assert "summary.json is damaged" in said and "going on from step 13 of 13" in said


@pytest.mark.parametrize("damage", ["missing", "truncated", "binary", "folder"])
def test_lost_lines_of_metrics_come_back_from_the_checkpoint(copied, damage, capsys):
    workdir, _ = copied
    path = workdir / "metrics.jsonl"
    before = lines(workdir)
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "binary":
        path.write_bytes(b"\x00\xff\xfe" + content[:100])
    elif damage == "folder":
        path.mkdir()
    run(workdir, "--resume")
    assert lines(workdir) == before
    assert "metrics.jsonl restored from the last checkpoint" in capsys.readouterr().out


def test_a_finished_study_takes_more_trials(copied):
    workdir, summary = copied
    more = run(workdir, "--resume", "--trials=2")
    assert [row["seed"] for row in rows(more)] == [0, 1]
    assert rows(more)[0] == rows(summary)[0]
    assert json.loads((workdir / "config.json").read_text())["settings"]["seeds"] == [0, 1]


def test_a_refused_resume_leaves_the_record_as_it_was(copied):
    workdir, _ = copied
    before = (workdir / "config.json").read_bytes()
    with pytest.raises(UserError, match=r"rate: 0\.001 there, 0\.5 asked for"):
        run(workdir, "--rate=0.5", "--resume")
    assert (workdir / "config.json").read_bytes() == before


def test_trials_that_are_not_asked_for_are_not_dropped(copied):
    workdir, before = copied
    run(workdir, "--resume", "--trials=2")
    (workdir / "config.json").unlink()
    with pytest.raises(UserError, match="^workdir: .* holds a trial of baseline, seed 1, which is"):
        run(workdir, "--resume")
    (workdir / "summary.json").unlink()  # The checkpoints tell as well.
    with pytest.raises(UserError, match="^workdir: .*seed_1 holds a trial of baseline, seed 1, wh"):
        run(workdir, "--resume")
    assert not (workdir / "config.json").exists()
    assert rows(run(workdir, "--resume", "--trials=2"))[:1] == rows(before)


def test_settings_that_devices_cannot_share_leave_no_folder(tmp_path):
    with pytest.raises(UserError, match="^batch_size: got 32; accepted: a multiple of the 3 dev"):
        run(tmp_path / "w", "--devices=3", "--shard=batch")
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    "place", ["checkpoints/baseline", "checkpoints/baseline/seed_0", "checkpoints"]
)
def test_a_file_where_checkpoints_belong_is_one_line(copied, place):
    workdir, _ = copied
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / place)
    (workdir / place).write_text("text")
    with pytest.raises(UserError, match=f"^workdir: .*{place} is not a folder; remove it"):
        run(workdir, "--resume")


@pytest.mark.parametrize("place", ["tensorboard/baseline/seed_0", "tensorboard"])
def test_lost_events_are_written_again(copied, place):
    workdir, _ = copied
    expected = points(workdir)
    shutil.rmtree(workdir / place)
    run(workdir, "--resume")
    assert points(workdir) == expected
    shutil.rmtree(workdir / place)
    (workdir / place).write_text("text")
    run(workdir, "--resume")
    assert points(workdir) == expected
    assert (workdir / f"{place}.damaged").read_text() == "text"


def test_rows_and_lines_of_another_shape_are_made_again(copied, capsys):
    workdir, before = copied
    summary = json.loads((workdir / "summary.json").read_text())
    del summary["runs"][0]["trials"][0]["test_mse"]
    (workdir / "summary.json").write_text(json.dumps(summary))
    expected = lines(workdir)
    wrong = [expected[0] | {"train_loss": "x"}, *expected[1:]]
    (workdir / "metrics.jsonl").write_text("\n".join(map(json.dumps, wrong)))
    assert rows(run(workdir, "--resume")) == rows(before)
    assert lines(workdir) == expected
    assert "1 unreadable lines removed" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["[exp 1]", "new/[a]/w/", "back\\slash", "gs:/w"])
def test_a_folder_that_orbax_cannot_use_is_refused_before_training(tmp_path, capsys, place):
    with pytest.raises(UserError, match=r"^workdir: got .*Orbax"):
        run(f"{tmp_path}/{place}")
    assert "epoch" not in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_was_moved_to_such_a_folder_is_left_as_it_is(copied):
    path = copied[0].rename(copied[0].with_name("[w]"))
    before = sorted(path.rglob("*"))
    with pytest.raises(UserError, match=r"^workdir: got .*Orbax"):
        run(path, "--resume", "--trials=2")
    assert sorted(path.rglob("*")) == before


def test_resuming_where_nothing_is_says_so(tmp_path, capsys):
    run(tmp_path / "w", "--resume")
    assert f"nothing to resume in {tmp_path}/w" in capsys.readouterr().out
