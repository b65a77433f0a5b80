import pathlib

import pytest

from experiments.data.prepare import ucf101_lists
from experiments.data.prepare.video import VideoFile
from experiments.system.errors import ConfigError, UserError

NAMES = ("Archery", "BabyCrawling", "HandstandPushups")


@pytest.fixture
def source(tmp_path):
    """The lists of three classes, groups 1 to 7 for testing and 8 to 25 for training."""
    lists = tmp_path / "ucfTrainTestlist"
    lists.mkdir()
    (tmp_path / "UCF-101").mkdir()
    (lists / "classInd.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(NAMES, 1)))
    train, test = [], []
    for label, name in enumerate(NAMES, 1):
        shown = name.replace("Handstand", "HandStand")  # as in the official lists
        for group in range(1, 26):
            for clip in range(1, 2 + group % 3):
                line = f"{name}/v_{shown}_g{group:02d}_c{clip:02d}.avi"
                (test if group <= 7 else train).append(line + f" {label}" * (group > 7))
    (lists / "trainlist01.txt").write_text("\r\n".join(train) + "\r\n")  # as they come
    (lists / "testlist01.txt").write_text("\n".join(test) + "\n")
    return tmp_path


def read(source):
    return ucf101_lists.videos(str(source), None)


def edit(source, name, old, new):
    path = source / "ucfTrainTestlist" / name
    text = path.read_bytes().decode()
    assert old in text
    path.write_bytes(text.replace(old, new, 1).encode())


def test_the_lists_give_each_video_its_class_and_group(source):
    videos, names = read(source)
    assert names == NAMES
    assert len(videos["train"]) == 3 * sum(1 + group % 3 for group in range(8, 26))
    assert len(videos["test"]) == 3 * sum(1 + group % 3 for group in range(1, 8))
    first, last = videos["train"][0], videos["train"][-1]
    assert (first.name, first.label, first.group) == ("Archery/v_Archery_g08_c01.avi", 0, 8)
    assert (last.name, last.label, last.group) == (
        "HandstandPushups/v_HandStandPushups_g25_c02.avi",
        2,
        25,
    )
    assert [v.label for v in videos["test"]] == sorted(v.label for v in videos["test"])


def test_files_are_found_whatever_the_case_of_their_names(source):
    folder = source / "UCF-101" / "HandstandPushups"
    folder.mkdir()
    path = folder / "v_HandstandPushups_g08_c01.avi"
    path.touch()
    videos, _ = read(source)
    found = {video.name: video.source for video in videos["train"]}
    assert found["HandstandPushups/v_HandStandPushups_g08_c01.avi"] == VideoFile(str(path))
    absent = "Archery/v_Archery_g08_c01.avi"
    assert found[absent] == VideoFile(str(source / "UCF-101" / absent))


@pytest.mark.parametrize("folder", ["HandStandPushups", "handstandpushups"])
def test_folders_are_found_whatever_the_case_of_their_names(source, folder):
    name = "v_HandStandPushups_g08_c01.avi"
    path = source / "UCF-101" / folder / name
    path.parent.mkdir()
    path.touch()
    (source / "UCF-101" / "notes.txt").touch()
    # Also where a list spells the class as its files do; the class has one name.
    edit(source, TRAIN, f"HandstandPushups/{name}", f"HandStandPushups/{name}")
    videos, _ = read(source)
    found = {video.name: video for video in videos["train"]}
    assert found[f"HandstandPushups/{name}"].source == VideoFile(str(path))
    assert found[f"HandstandPushups/{name}"].label == 2


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lists_that_windows_wrote(source, end):
    expected = read(source)
    for path in (source / "ucfTrainTestlist").glob("*.txt"):
        text = end.join(path.read_text().splitlines())
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())  # with a byte-order mark
    assert read(source) == expected


def test_validation_takes_whole_groups_about_11_percent_of_them(source):
    videos, _ = read(source)
    splits = ucf101_lists.cut_validation(videos)
    groups = {name: {(v.label, v.group) for v in found} for name, found in splits.items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]
    assert groups["validation"] == {(label, group) for label in range(3) for group in (24, 25)}
    assert sorted(v.name for v in splits["train"] + splits["validation"]) == sorted(
        v.name for v in videos["train"]
    )
    share = len(splits["validation"]) / len(videos["train"])
    assert 0.08 < share < 0.14
    assert splits["test"] == videos["test"]


@pytest.mark.parametrize(
    "groups, held", [(1, 0), (2, 1), (9, 1), (13, 1), (14, 2), (18, 2), (23, 3)]
)
def test_the_number_of_groups_held_out(groups, held):
    videos = [ucf101_lists.Video(f"a{i}", 0, i) for i in range(groups)]
    splits = ucf101_lists.cut_validation({"train": videos, "test": []})
    assert len(splits["validation"]) == held
    assert splits["train"] + splits["validation"] == videos


TRAIN, TEST, INDEX = "trainlist01.txt", "testlist01.txt", "classInd.txt"
WRONG = [
    (TRAIN, "_g08_c01.avi 1", "_g08_c01.avi", "trainlist01.txt, line 1: got .* NUMBER"),
    (TRAIN, "_g08_c01.avi 1", "_g08_c01.avi 2", "line 1: .* accepted: the number 1"),
    (TRAIN, "Archery/v_Archery_g08", "Archery/v_Bowling_g08", "line 1: got"),
    (TRAIN, "Archery/v_Archery_g08", "Bow/v_Bow_g08", "the classes of classInd.txt"),
    (
        TRAIN,
        "Archery/v_Archery_g08",
        "Archery/v_Archery_g02",
        "got group 2 of Archery in",
    ),
    (TRAIN, "_g08_c02.avi", "_g08_c01.avi", "line 2: got .*; accepted: each video once"),
    (TEST, "_g01_c01.avi", "_g01_c01.mp4", "testlist01.txt, line 1: got"),
    (TEST, "_g01_c01.avi", "_g01_c01.avi 2", "testlist01.txt, line 1: .* accepted: the number 1"),
    (TEST, "_g01_c01.avi", "_g01_c01.avi one", "testlist01.txt, line 1: .* the number 1"),
    (INDEX, "2 BabyCrawling", "4 BabyCrawling", "classInd.txt, line 2: got '4 Baby"),
    (
        INDEX,
        "3 HandstandPushups",
        "3 HandstandPushups\n4 Bowling",
        "got a train list without",
    ),
]


@pytest.mark.parametrize("name, old, new, said", WRONG)
def test_a_list_that_is_not_as_it_comes_is_named_with_its_line(source, name, old, new, said):
    edit(source, name, old, new)
    with pytest.raises(UserError, match=said):
        read(source)


def test_test_lists_may_hold_the_numbers_of_the_classes(source):
    """Some copies of the lists name the class behind the video in both lists."""
    expected = read(source)
    path = source / "ucfTrainTestlist" / "testlist01.txt"
    numbers = {name: number for number, name in enumerate(NAMES, 1)}
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line} {numbers[line.partition('/')[0]]} \n" for line in lines))
    assert read(source) == expected


def test_missing_and_empty_lists_are_named(source):
    lists = source / "ucfTrainTestlist"
    (lists / "testlist01.txt").write_text("\n\n")
    with pytest.raises(UserError, match="testlist01.txt is empty"):
        read(source)
    (lists / "testlist01.txt").unlink()
    with pytest.raises(UserError, match="testlist01.txt cannot be read"):
        read(source)
    with pytest.raises(UserError, match="^source: .*UCF-101 is not a folder.; accepted: a folder"):
        read(lists)
    elsewhere = pathlib.Path(source / "elsewhere")
    lists.rename(elsewhere)
    with pytest.raises(UserError, match="^source: .*ucfTrainTestlist is not a folder"):
        read(source)
    with pytest.raises(UserError, match="cannot be read"):
        ucf101_lists.videos(str(source), str(elsewhere))
    for nowhere in (str(source / "nowhere"), str(source / "elsewhere" / "classInd.txt")):
        with pytest.raises(ConfigError, match="^lists: got .* is not a folder.; accepted: the off"):
            ucf101_lists.videos(str(source), nowhere)
