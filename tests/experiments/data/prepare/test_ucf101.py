"""From video files in the official naming to clips, whatever happens on the way."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys

import av
import numpy as np
import pytest

from experiments import data
from experiments.data import DatasetNotPrepared, store, ucf101
from experiments.data.prepare import ucf101 as ucf101_prepare
from experiments.data.prepare.staging import publish
from experiments.system.errors import ConfigError, UserError

CLASSES = ("ApplyEyeMakeup", "ApplyLipstick", "Archery")
TRAIN_GROUPS, TEST_GROUPS = range(8, 14), range(1, 3)
FRAMES = 24


def gray(label, group, clip):
    """The gray level of a video in these tests tells which it is."""
    return 20 + 80 * label + 5 * (group - 1) + 2 * clip


def write(path, level, frames=FRAMES):
    """A video of one gray level, whose right half gets brighter with every frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.bit_rate = 1_000_000
        for index in range(frames):
            frame = np.full((240, 320, 3), level, np.uint8)
            frame[:, 160:] = 8 * index
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Three classes of six training groups and two test groups; a group has one video or two."""
    root = tmp_path_factory.mktemp("official")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(CLASSES, 1)))
    train, test = [], []
    for label, name in enumerate(CLASSES):
        (root / "UCF-101" / name).mkdir(parents=True)
        for group in (*TEST_GROUPS, *TRAIN_GROUPS):
            for clip in range(1, 2 + group % 2):
                video = f"{name}/v_{name}_g{group:02d}_c{clip:02d}.avi"
                write(root / "UCF-101" / video, gray(label, group, clip))
                if group in TRAIN_GROUPS:
                    train.append(f"{video} {label + 1}")
                else:
                    test.append(video)
    (lists / "trainlist01.txt").write_text("\n".join(train) + "\n")
    (lists / "testlist01.txt").write_text("\n".join(test) + "\n")
    return root


@pytest.fixture
def source(original, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "official")


def prepare(source, data_dir, classes=2, **options):
    options = {"max_skipped": 1.0, **options}
    return ucf101_prepare.prepare(str(source), str(data_dir), classes, workers=1, **options)


def load(data_dir, **options):
    return data.load("ucf101", str(data_dir), **options)


@pytest.fixture(scope="module")
def prepared(original, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("prepared")
    flags = [f"--source={original}", "--classes=2", f"--data_dir={data_dir}", "--workers=2"]
    command = [sys.executable, "-m", "experiments.prepare_data", "ucf101", *flags]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "56 train + 16 validation + 24 test examples of 2 classes in " in ran.stdout
    assert ran.stdout.endswith("; 0 videos skipped\n")
    assert "counting: 24 videos in" in ran.stderr and "decoding: 24 videos in" in ran.stderr
    return data_dir


def levels(split):
    """The gray level of the left half of each clip, which names the video."""
    return [round(float(clip[:, :, :50].mean())) for clip in split.examples]


def test_clips_labels_and_splits_are_those_of_the_lists(prepared):
    dataset = load(prepared)
    assert dataset.class_names == CLASSES[:2]
    assert dataset.mirror_symmetric
    # Of six groups one is held out: the last, 13, which has two videos.
    groups = {"train": range(8, 13), "validation": [13], "test": TEST_GROUPS}
    for name, split in dataset.splits().items():
        videos = [
            (label, group, clip)
            for label in range(2)
            for group in groups[name]
            for clip in range(1, 2 + group % 2)
        ]
        assert split.examples.shape == (4 * len(videos), 16, 112, 112, 3)
        assert isinstance(split.examples, np.memmap)
        np.testing.assert_array_equal(split.labels, np.repeat([v[0] for v in videos], 4))
        expected = np.repeat([gray(*video) for video in videos], 4)
        assert np.all(np.abs(np.array(levels(split)) - expected) <= 1)
        # 4 clips of 16 of the 24 frames begin at 0, 3, 5 and 8; the right half tells the frame.
        right = split.examples[:, :, :, 62:].mean((2, 3, 4))
        begins = np.tile(np.array([0, 3, 5, 8]), len(videos))
        frames = begins[:, None] + np.arange(16)
        assert np.all(np.abs(right - 8 * frames) <= 3)


def test_no_group_is_in_two_splits(prepared):
    manifest = json.loads((ucf101.place(str(prepared)) / "manifest.json").read_text())
    groups = {
        split: {name.rpartition("_")[0] for name in names}
        for split, names in manifest["videos"].items()
    }
    assert len(groups["train"]) == 10 and len(groups["validation"]) == 2
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_fewer_classes_are_the_first_ones_and_more_are_an_error(original, tmp_path):
    prepare(original, tmp_path, classes=3)
    whole, part = load(tmp_path), load(tmp_path, classes=2)
    assert whole.class_names == CLASSES and part.class_names == CLASSES[:2]
    for name, split in part.splits().items():
        first = whole.splits()[name]
        np.testing.assert_array_equal(split.labels, first.labels[first.labels < 2])
        np.testing.assert_array_equal(split.examples, first.examples[: len(split)])
    with pytest.raises(DatasetNotPrepared, match="has 3 classes, not 4; .*--classes=4"):
        load(tmp_path, classes=4)
    with pytest.raises(UserError, match="^classes: got 1; accepted: 2 to 3"):
        load(tmp_path, classes=1)
    # What is there is enough and is left alone.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert prepare(original, tmp_path, classes=2).skipped == {}
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    # A source that is not there is told all the same.
    with pytest.raises(ConfigError, match="^source: got nowhere .*is not a folder"):
        prepare("nowhere", tmp_path, classes=2)


def test_more_classes_replace_what_was_prepared(prepared, original, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    prepare(original, tmp_path, classes=3)
    assert load(tmp_path).class_names == CLASSES
    assert [path.name for path in tmp_path.iterdir()] == [ucf101.FOLDER]


def test_videos_that_cannot_be_used_are_skipped_and_counted(source, tmp_path, capsys):
    folder = source / "UCF-101" / CLASSES[0]
    names = [f"v_{CLASSES[0]}_g{group}_c01.avi" for group in ("08", "09", "10", "11")]
    truncated, empty, short, missing = (folder / name for name in names)
    truncated.write_bytes(truncated.read_bytes()[: truncated.stat().st_size // 2])
    empty.write_bytes(b"")
    write(short, 100, frames=15)
    missing.unlink()
    report = prepare(source, tmp_path)
    reasons = {f"{CLASSES[0]}/{path.name}": path for path in (truncated, empty, short, missing)}
    assert set(report.skipped) == set(reasons)
    assert [report.skipped[name].partition(":")[0] for name in reasons] == [
        *("damaged", "empty file", "too short", "missing")
    ]
    said = capsys.readouterr().err
    assert all(f"skipped: {name}: {report.skipped[name]}" in said for name in reasons)
    notices = []
    dataset = load(tmp_path, notice=notices.append)
    (line,) = notices
    assert line.startswith("dataset: 4 of 24 listed videos were skipped when ucf101 was prepared")
    # Of the 7 training videos of groups 8 to 12 of the first class, 3 are left.
    np.testing.assert_array_equal(np.bincount(dataset.train.labels), [12, 28])
    assert "4 were skipped" in dataset.provenance
    expected = {gray(0, 9, 2), gray(0, 11, 2), gray(0, 12, 1)}
    assert {
        min(expected, key=lambda e, a=a: abs(e - a)) for a in levels(dataset.train)[:12]
    } == expected


def hide(source, share):
    """Moves this share of the videos of the first two classes away, as if not extracted yet."""
    videos = sorted(path for name in CLASSES[:2] for path in (source / "UCF-101" / name).iterdir())
    kept = source / "kept"
    kept.mkdir()
    hidden = videos[:: round(1 / share)]
    for path in hidden:
        path.rename(kept / path.name)
    return hidden


def show(source, hidden):
    for path in hidden:
        (source / "kept" / path.name).rename(path)


def test_a_half_extracted_source_is_refused_and_completed_by_the_same_command(
    source, prepared, tmp_path
):
    hidden = hide(source, 1 / 2)
    said = r"^source: .*12 of 24 listed videos \(50.0 %\) are missing or .*at most 2 %.*--max_skip"
    with pytest.raises(ConfigError, match=said):
        prepare(source, tmp_path / "D", max_skipped=ucf101_prepare.MAX_SKIPPED)
    assert not ucf101.is_prepared(str(tmp_path / "D"))
    show(source, hidden)
    assert prepare(source, tmp_path / "D", max_skipped=0).skipped == {}
    for name, split in load(tmp_path / "D").splits().items():
        np.testing.assert_array_equal(split.examples, load(prepared).splits()[name].examples)


def test_videos_that_were_missing_are_added_by_the_next_run(source, prepared, tmp_path):
    hidden = hide(source, 1 / 6)
    prepare(source, tmp_path / "D", max_skipped=0.2)
    first = load(tmp_path / "D", notice=lambda line: None)
    assert len(first.train) < 56
    # The same again, without the permission: still refused, and what is there stays.
    with pytest.raises(ConfigError, match="^source: .*4 of 24 listed videos"):
        prepare(source, tmp_path / "D", max_skipped=0.1)
    show(source, hidden)
    assert prepare(source, tmp_path / "D", max_skipped=0).skipped == {}
    again = load(tmp_path / "D")
    assert again.fingerprint == load(prepared).fingerprint != first.fingerprint
    np.testing.assert_array_equal(again.train.examples, load(prepared).train.examples)


def test_videos_that_have_changed_are_prepared_again_and_lost_ones_are_kept(source, tmp_path):
    place = tmp_path / "D"
    prepare(source, place)
    before = load(place).fingerprint
    video = source / "UCF-101" / CLASSES[0] / f"v_{CLASSES[0]}_g09_c01.avi"
    os.utime(video, ns=(0, 0))  # as a copy has another time
    prepare(source, place)
    assert load(place).fingerprint == before
    video.rename(source / "lost.avi")
    prepare(source, place, max_skipped=0)
    assert load(place).fingerprint == before
    write(video, 100)
    prepare(source, place)
    changed = load(place)
    assert changed.fingerprint != before
    assert 100 in levels(changed.train)


def test_fewer_classes_than_are_prepared_repair_all_that_are(source, tmp_path):
    hidden = hide(source, 1 / 6)
    prepare(source, tmp_path / "D", classes=3)
    show(source, hidden)
    prepare(source, tmp_path / "D", classes=2)
    assert load(tmp_path / "D").class_names == CLASSES


def test_clips_of_earlier_versions_are_left_alone(prepared, original, tmp_path):
    """Their manifests hold the number of frames alone, and no source."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    folder = ucf101.place(str(tmp_path))
    manifest = ucf101.manifest(folder)
    del manifest["source"], manifest["lists"]
    for videos in manifest["videos"].values():
        videos.update({name: probe["frames"] for name, probe in videos.items()})
    (folder / ucf101.MANIFEST).write_text(json.dumps(manifest))
    folder.rename(tmp_path / "built")
    publish(tmp_path / "built", folder)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert prepare(original, tmp_path, max_skipped=0).skipped == {}
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after == before
    assert load(tmp_path).fingerprint == load(prepared).fingerprint


def test_the_manifest_says_where_the_clips_come_from(prepared, original):
    manifest = ucf101.manifest(ucf101.place(str(prepared)))
    assert manifest["source"] == str(original) and manifest["lists"] is None
    for split in ucf101.SPLITS:
        for name, probe in manifest["videos"][split].items():
            status = (original / "UCF-101" / name).stat()
            assert probe == {
                "frames": FRAMES,
                "height": 240,
                "width": 320,
                "stamp": [status.st_size, status.st_mtime_ns],
            }


def test_the_identity_changes_with_the_classes_and_not_with_the_place(prepared, tmp_path):
    whole = load(prepared)
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    manifest = ucf101.place(str(copy)) / ucf101.MANIFEST
    assert load(copy).fingerprint == whole.fingerprint
    assert load(copy).data_dir == str(copy) and manifest.exists()
    assert whole.with_train_examples(8).fingerprint != whole.fingerprint
    assert load(copy, classes=2).fingerprint == whole.fingerprint


def test_a_class_without_a_usable_video_is_an_error_that_names_it(source, tmp_path):
    for path in (source / "UCF-101" / CLASSES[1]).glob("*_g0[12]_*"):
        write(path, 100, frames=10)
    (source / "UCF-101" / CLASSES[1] / f"v_{CLASSES[1]}_g08_c01.avi").write_bytes(b"")  # training
    with pytest.raises(
        ConfigError, match="no usable test .* class ApplyLipstick .*too short: 10 of 16.*, of 3"
    ):
        prepare(source, tmp_path)
    assert not ucf101.is_prepared(str(tmp_path))


def test_a_video_that_changes_while_it_is_prepared_is_named_and_the_next_run_goes_on(
    source, tmp_path, monkeypatch
):
    name = f"{CLASSES[0]}/v_{CLASSES[0]}_g09_c01.avi"
    path = source / "UCF-101" / name
    write_all = ucf101_prepare._write

    def damage_first(*arguments):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as long and as old as before
        return write_all(*arguments)

    monkeypatch.setattr(ucf101_prepare, "_write", damage_first)
    with pytest.raises(UserError, match=f"^source: got {name}, which was .*not a video.* again"):
        prepare(source, tmp_path)
    monkeypatch.setattr(ucf101_prepare, "_write", write_all)
    assert set(prepare(source, tmp_path).skipped) == {name}
    assert len(load(tmp_path).train) == 2 * 7 * 4 - 4


def test_a_video_of_the_same_length_put_in_anothers_place_is_counted_again(source, tmp_path):
    path = source / "UCF-101" / CLASSES[0] / f"v_{CLASSES[0]}_g09_c01.avi"
    stamp = ucf101_prepare.video.VideoFile(str(path)).stamp()
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(0, 0))
    assert ucf101_prepare.video.VideoFile(str(path)).stamp() != stamp


def test_a_damaged_journal_is_as_if_its_lines_were_not_there(original, prepared, tmp_path):
    folder = tmp_path / f".{ucf101.FOLDER}.incomplete"
    folder.mkdir()
    (folder / "counted.jsonl").write_bytes(b'nonsense\n["a", 3]\n["b", {}]\n\xff\n')
    prepare(original, tmp_path)
    for name, split in load(tmp_path).splits().items():
        np.testing.assert_array_equal(split.examples, load(prepared).splits()[name].examples)


KILLED = ("kill_at_counting", "kill_at_decoding", "kill_at_publishing")


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_run_goes_on_where_it_was(
    point, prepared, original, tmp_path, monkeypatch, with_fault
):
    data_dir = tmp_path / "data"
    ran = with_fault(point, "prepare_ucf101", original, data_dir, 1)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not ucf101.is_prepared(str(data_dir))
    with pytest.raises(DatasetNotPrepared):
        load(data_dir)
    incomplete = data_dir / f".{ucf101.FOLDER}.incomplete"
    with open(incomplete / "counted.jsonl", "a") as journal:
        journal.write('["cut off in the mid')  # a line that was being written

    jobs = []
    in_order = ucf101_prepare.in_order

    def counted(run, function, todo, workers):
        jobs.append((function.__name__, len(todo)))
        return in_order(run, function, todo, workers)

    monkeypatch.setattr(ucf101_prepare, "in_order", counted)
    prepare(original, data_dir)
    total = 2 * (9 + 3)
    done = {"counting": (11, 0), "decoding": (total, 11), "publishing": (total, total)}
    done = done[point.removeprefix("kill_at_")]
    assert jobs == [("_probe", total - done[0]), ("_extract", total - done[1])]
    for name, split in load(data_dir).splits().items():
        np.testing.assert_array_equal(split.examples, load(prepared).splits()[name].examples)
        np.testing.assert_array_equal(split.labels, load(prepared).splits()[name].labels)
    assert [path.name for path in data_dir.iterdir()] == [ucf101.FOLDER]


def test_a_plan_that_is_taken_up_again_does_not_trust_the_journal_of_removed_clips(
    prepared, original, tmp_path, monkeypatch
):
    """Two classes, interrupted; then three, interrupted; then two again."""
    make = ucf101_prepare.video.clips
    for classes in (2, 3):
        calls = iter(range(12))

        def interrupted(*arguments, calls=calls):
            if next(calls) == 11:
                raise KeyboardInterrupt
            return make(*arguments)

        monkeypatch.setattr(ucf101_prepare.video, "clips", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(original, tmp_path, classes=classes)
    monkeypatch.setattr(ucf101_prepare.video, "clips", make)
    prepare(original, tmp_path, classes=2)
    for name, split in load(tmp_path).splits().items():
        np.testing.assert_array_equal(split.examples, load(prepared).splits()[name].examples)


def test_workers_end_with_the_run_that_started_them(original, tmp_path, with_fault):
    """SIGKILL of the whole run in the middle, with real worker processes."""
    # The call returns when the pipes close, which is when the last worker has ended.
    ran = with_fault("kill_with_workers", "prepare_ucf101", original, tmp_path / "data", 2)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout.split()
    prepare(original, tmp_path / "data")


def test_damage_is_told_at_loading_and_repaired_by_preparing(prepared, original, tmp_path):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    clips = ucf101.place(str(tmp_path)) / "train.npy"
    with open(clips, "r+b") as file:
        file.truncate(clips.stat().st_size - 1)
    command = f"python -m experiments.prepare_data ucf101 --source=FOLDER --data_dir={tmp_path}"
    with pytest.raises(DatasetNotPrepared, match=f"is damaged: train.npy has .*: {command}"):
        load(tmp_path)
    prepare(original, tmp_path)
    assert len(load(tmp_path).train) == 2 * 7 * 4
    # A changed byte is found by the command, which reads everything.
    with open(clips, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x01")
    assert store.damage(ucf101.place(str(tmp_path))) is not None
    prepare(original, tmp_path)
    assert store.damage(ucf101.place(str(tmp_path))) is None


def test_a_changed_byte_of_a_small_file_is_told_at_loading(prepared, tmp_path):
    """The clips are too large to be read whole; the manifest and the labels are not."""
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    folder = ucf101.place(str(tmp_path))
    for name in ("manifest.json", "train_labels.npy", "checksums.json"):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(b"\xff" + content[1:])
        with pytest.raises(
            DatasetNotPrepared, match=f"is damaged: {name} .*; repair it with: pyth"
        ):
            load(tmp_path)
        (folder / name).write_bytes(content)
    with open(folder / "train.npy", "r+b") as file:
        file.write(b"\xff")
    with pytest.raises(DatasetNotPrepared, match="is damaged: .*; repair it with: python"):
        load(tmp_path)


def test_flags_are_named_where_they_do_not_fit(original, tmp_path, monkeypatch):
    for classes, most in ((1, 3), (4, 3)):
        with pytest.raises(UserError, match=f"^classes: got {classes}; accepted: 2 to {most}"):
            prepare(original, tmp_path, classes=classes)
    with pytest.raises(UserError, match="^source: .* is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"PyAV; install it with `pip install -e '.\[video\]'`"):
        prepare(original, tmp_path)


def test_a_disk_too_small_keeps_what_is_done(original, tmp_path, monkeypatch):
    usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(folder)._replace(free=1000))
    with pytest.raises(UserError, match="^data_dir: .*no space is left.*about 58 MB are needed"):
        prepare(original, tmp_path)
    assert not ucf101.is_prepared(str(tmp_path))
    (incomplete,) = tmp_path.iterdir()  # the lock is gone
    assert len((incomplete / "counted.jsonl").read_text().splitlines()) == 24
