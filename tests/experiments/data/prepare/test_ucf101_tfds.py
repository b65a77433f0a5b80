"""A `ucf101` folder written by TFDS's own builder, from frames that are made here."""

import io
import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import data
from experiments.data import ucf101
from experiments.data.prepare import ucf101 as ucf101_prepare
from experiments.data.prepare import ucf101_tfds
from experiments.data.prepare import video as video_lib
from experiments.system.errors import ConfigError

NAMES = ("ApplyEyeMakeup", "ApplyLipstick", "HandstandPushups")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tfds_builders):
    """(lists, data_dir of each file format)"""
    root = tmp_path_factory.mktemp("tfds")
    lists = root / "ucfTrainTestlist"
    lists.mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1)))
    rows = {"train": [], "test": []}
    for label, name in enumerate(NAMES, 1):
        shown = name.replace("Handstand", "HandStand")
        for group in range(1, 12):
            for clip in (1, 2):
                line = f"{name}/v_{shown}_g{group:02d}_c{clip:02d}.avi"
                if group <= 2:
                    rows["test"].append(line)
                else:
                    rows["train"].append(f"{line} {label}")
    for split, lines in rows.items():
        (lists / f"{split}list01.txt").write_text("\n".join(lines) + "\n")
    ran = tfds_builders("ucf101", lists, root)
    assert ran.returncode == 0, ran.stderr
    return lists, root


def folder(root, file_format="array_record"):
    return root / file_format / "ucf101" / "ucf101_1_256" / "2.0.0"


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_tfds_folder_gives_the_clips_and_the_groups_of_the_lists(file_format, prepared, tmp_path):
    lists, root = prepared
    source = folder(root, file_format)
    ucf101_prepare.prepare(str(source), str(tmp_path), 2, workers=1, lists=str(lists))
    dataset = data.load("ucf101", str(tmp_path))
    assert dataset.class_names == NAMES[:2]
    for name, groups in (("train", range(3, 11)), ("validation", [11]), ("test", [1, 2])):
        split = dataset.splits()[name]
        videos = [(label, group, clip) for label in (0, 1) for group in groups for clip in (1, 2)]
        np.testing.assert_array_equal(split.labels, np.repeat([v[0] for v in videos], 4))
        expected = np.repeat(
            [100 * label + 6 * group + 2 * clip for label, group, clip in videos], 4
        )
        levels = split.examples[:, :, :, :50].mean((1, 2, 3, 4))
        assert np.all(np.abs(levels - expected) < 0.9)  # JPEG
        begins = np.tile([0, 1, 3, 4], len(videos))
        frames = split.examples[:, :, :, 60:].mean((2, 3, 4)) / 10
        np.testing.assert_array_equal(np.rint(frames), begins[:, None] + np.arange(16))
    manifest = json.loads((ucf101.place(str(tmp_path)) / "manifest.json").read_text())
    assert "from a TFDS folder" in manifest["provenance"]
    assert "256x256" in manifest["provenance"]


def test_the_lists_are_found_where_tfds_unpacked_them(prepared, tmp_path):
    lists, root = prepared
    shutil.copytree(root / "array_record", tmp_path / "D")
    source = folder(tmp_path, "D")
    with pytest.raises(
        ConfigError,
        match="^lists: got None; accepted: the official folder ucfTrainTestlist .*groups",
    ):
        ucf101_tfds.videos(str(source), None)
    unpacked = tmp_path / "D" / "downloads" / "extracted" / "ZIP.lists" / "ucfTrainTestlist"
    shutil.copytree(lists, unpacked)
    videos, names = ucf101_tfds.videos(str(source), None)
    assert names == NAMES
    assert len(videos["train"]) == 3 * 9 * 2


def test_lists_that_the_folder_was_not_made_with_are_refused(prepared, tmp_path):
    lists, root = prepared
    other = shutil.copytree(lists, tmp_path / "lists")
    train = other / "trainlist01.txt"
    train.write_text("\n".join(train.read_text().splitlines()[1:]) + "\n")
    with pytest.raises(
        ConfigError, match="^source: .* holds 54 videos of the train split; accepted: the 53"
    ):
        ucf101_tfds.videos(str(folder(root)), str(other))
    # The right number of videos, but other names: a label does not fit.
    lines = (lists / "trainlist01.txt").read_text()
    train.write_text(lines.replace("_g03_", "_g33_").replace("_g04_", "_g34_"))
    with pytest.raises(
        ConfigError, match="^lists: got lists that give record .*, where it has .*official lists"
    ):
        ucf101_prepare.prepare(str(folder(root)), str(tmp_path / "D"), 3, 1, str(other))


def test_a_folder_of_tfds_is_told_from_one_of_files(prepared, tmp_path, monkeypatch):
    version = folder(prepared[1])
    # Itself, the `ucf101` folder around it, TFDS's data_dir, and a relative path.
    for path in (version, version.parents[1], version.parents[2]):
        assert ucf101_tfds.is_folder(str(path))
        assert ucf101_tfds._version(str(path)) == (version.resolve(), 1)
    monkeypatch.chdir(version)
    assert ucf101_tfds._version(".") == (version.resolve(), 1)
    assert not ucf101_tfds.is_folder(str(tmp_path))
    assert not ucf101_tfds.is_folder(str(pathlib.Path(tmp_path) / "nowhere"))


def test_a_folder_that_tells_no_split_or_several_versions_is_refused(prepared, tmp_path):
    other = shutil.copytree(folder(prepared[1]), tmp_path / "ucf101" / "my_videos" / "2.0.0")
    with pytest.raises(
        ConfigError, match="^source: .*; accepted: a folder inside one with TFDS's name"
    ):
        ucf101_tfds.videos(str(other), str(prepared[0]))
    for config in ("ucf101_1_256", "ucf101_2_256"):
        shutil.copytree(other, tmp_path / "ucf101" / config / "2.0.0")
    with pytest.raises(
        ConfigError, match="^source: .*, which holds several; accepted: .*ucf101_1_256.* or "
    ):
        ucf101_tfds.videos(str(tmp_path), str(prepared[0]))
    info = tmp_path / "ucf101" / "ucf101_1_256" / "2.0.0" / "dataset_info.json"
    info.write_text("{")
    with pytest.raises(ConfigError, match="^source: .*dataset_info.json is damaged"):
        ucf101_tfds.videos(str(info.parent), str(prepared[0]))
    info.write_text('{"fileFormat": "parquet"}')
    with pytest.raises(ConfigError, match="^source: .*in the file format parquet; accepted: .*arr"):
        ucf101_tfds.videos(str(info.parent), str(prepared[0]))


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_a_damaged_array_record_file_is_told_in_one_line(content, prepared, tmp_path):
    source = shutil.copytree(prepared[1] / "array_record", tmp_path / "source")
    for path in source.rglob("*train.array_record*"):
        path.write_bytes(content)
    with pytest.raises(ConfigError, match="^source: got .*") as caught:
        ucf101_tfds.videos(str(source), str(prepared[0]))
    assert "\n" not in str(caught.value)


def test_damaged_records_and_frames_are_skipped(prepared, tmp_path, capsys):
    lists, root = prepared
    source = shutil.copytree(root / "tfrecord", tmp_path / "source")
    videos, _ = ucf101_tfds.videos(str(source), str(lists))
    chosen = videos["train"][:2]
    for video, offset in zip(chosen, (12 + 40, 12 + 4000), strict=True):
        with open(video.source.path, "r+b") as file:
            file.seek(video.source.position + offset)
            file.write(b"\xff" * 100)
    report = ucf101_prepare.prepare(str(source), str(tmp_path / "D"), 2, 1, str(lists), 1)
    assert set(report.skipped) == {video.name for video in chosen}
    assert all(why.startswith("damaged ") for why in report.skipped.values())
    assert capsys.readouterr().err.count("skipped: ") == 2


def test_a_frame_cut_short_is_unreadable():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(buffer, "JPEG")
    assert video_lib._image(buffer.getvalue()).shape == (64, 64, 3)
    for broken in (b"", b"junk", buffer.getvalue()[:-30]):
        with pytest.raises(video_lib.Unreadable, match="^damaged frame: "):
            video_lib._image(broken)
