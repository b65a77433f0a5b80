"""Pascal VOC and Cityscapes in their own layouts, with every fault that a folder can have."""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import flax.linen as nn
import numpy as np
import optax
import pytest
from PIL import Image

from experiments import data
from experiments.data import DatasetNotPrepared, label_images, store
from experiments.data.prepare import label_images as prepare_label_images
from experiments.data.prepare import label_lists
from experiments.system.errors import ConfigError, UserError
from experiments.tasks.segmentation import segmentation
from experiments.training.execution import Executor, batches
from tests.experiments.data import label_folders
from tests.experiments.data.label_folders import AUGMENTED, TRAIN, VAL
from tests.experiments.small import HOST


def prepare(name, source, data_dir, **options):
    options = {"workers": 1, "size": 64, **options}
    return prepare_label_images.prepare(name, str(source), str(data_dir), **options)


def load(name, data_dir, **options):
    return data.load(name, str(data_dir), notice=lambda line: None, **options)


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    return label_folders.write_voc(tmp_path_factory.mktemp("voc") / "VOCdevkit")


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory):
    return label_folders.write_cityscapes(tmp_path_factory.mktemp("cityscapes"))


@pytest.fixture(scope="module")
def prepared_voc(voc, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("prepared")
    flags = ["voc", f"--source={voc}", f"--data_dir={data_dir}", "--workers=2", "--size=64"]
    command = [sys.executable, "-m", "experiments.prepare_data", *flags]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "voc: 8 train + 4 test examples of 21 classes in " in ran.stdout
    assert ran.stdout.endswith("; 0 pictures skipped\n")
    assert "checking: 12 pictures in" in ran.stderr and "storing: 12 pictures in" in ran.stderr
    return data_dir


@pytest.fixture(scope="module")
def prepared_cityscapes(cityscapes, tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("prepared")
    prepare("cityscapes", cityscapes, data_dir)
    return data_dir


def test_pictures_of_voc_are_on_squares_with_void_around(prepared_voc):
    dataset = load("voc", prepared_voc)
    assert dataset.class_names[:2] == ("background", "aeroplane") and dataset.num_classes == 21
    assert dataset.ignore_label == 255 and dataset.mirror_symmetric
    names = {"train": TRAIN + AUGMENTED, "test": VAL}
    everything = TRAIN + AUGMENTED + VAL
    for split, expected in names.items():
        found = dataset.splits()[split]
        assert isinstance(found.examples, np.memmap) and isinstance(found.labels, np.memmap)
        assert found.examples.shape == (len(expected), 64, 64, 3)
        for row, name in enumerate(expected):
            index = everything.index(name)
            width, height = label_folders.VOC_SIZES[index % 4]
            labels = label_folders.voc_labels(index, width, height)
            if index == 0:  # SegmentationClassAug goes first in training.
                labels = np.full((height, width), 20, np.uint8)
            if width == 128:  # Every second pixel; which one, the rectangle tells to a pixel.
                width, height, labels = 64, 48, labels[::2, ::2]
            top, left = (64 - height) // 2, (64 - width) // 2
            inside = np.s_[top : top + height, left : left + width]
            assert np.mean(found.labels[row][inside] != labels) < 0.06
            if height < 48:
                np.testing.assert_array_equal(found.labels[row][inside], labels)
            around = np.ones((64, 64), bool)
            around[inside] = False
            assert np.all(found.labels[row][around] == 255)
            assert np.all(found.examples[row][around] == (124, 116, 104))
            gray = found.examples[row][inside].astype(int)
            assert np.abs(gray - 20 * index).max() <= 2


def test_without_segmentation_class_aug_the_lists_alone_count(voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    shutil.rmtree(source / "VOC2012" / "SegmentationClassAug")
    found = label_lists.pictures("voc", str(source / "VOC2012"))  # without the outer folder, too
    assert [picture.name for picture in found["train"]] == list(TRAIN)
    assert [picture.name for picture in found["test"]] == list(VAL)
    with_more = label_lists.pictures("voc", str(voc))
    assert not {p.name for p in with_more["train"]} & set(VAL)


def test_lists_that_windows_wrote(voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    for path in (source / "VOC2012" / "ImageSets" / "Segmentation").glob("*.txt"):
        names = "\r\n".join(path.read_text().split())
        path.write_bytes(b"\xef\xbb\xbf" + names.encode())  # with a byte-order mark
    found, expected = (label_lists.pictures("voc", str(root)) for root in (source, voc))
    for split, pictures in expected.items():
        assert [p.name for p in found[split]] == [p.name for p in pictures]


def test_hidden_files_are_no_pictures(voc, cityscapes, tmp_path):
    # macOS writes ._NAME beside each file that it copies to other disks.
    for name, original, folder in (
        ("voc", voc, "VOC2012/SegmentationClassAug"),
        ("cityscapes", cityscapes, "leftImg8bit/train/aachen"),
    ):
        source = shutil.copytree(original, tmp_path / name)
        for path in list((source / folder).glob("*.png")):
            path.with_name(f"._{path.name}").write_bytes(b"Mac OS X")
        found, expected = (label_lists.pictures(name, str(root)) for root in (source, original))
        for split, of in expected.items():
            assert [p.name for p in found[split]] == [p.name for p in of]


def test_labels_with_a_name_of_several_lines_are_one_line(voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    label_folders.save_gray(
        np.zeros((4, 4), np.uint8), source / "VOC2012" / "SegmentationClassAug" / "a\nb.png"
    )
    with pytest.raises(UserError, match=r"^source: got .*'a\\nb.png'.*; accepted: ") as told:
        prepare("voc", source, tmp_path / "D")
    assert "\n" not in str(told.value)


def test_cityscapes_has_training_ids_and_for_label_to_image_ids_with_edges(prepared_cityscapes):
    dataset = load("cityscapes", prepared_cityscapes)
    edged = load("cityscapes", prepared_cityscapes, edges=True)
    assert (dataset.num_classes, dataset.ignore_label) == (19, 255)
    assert (edged.num_classes, edged.ignore_label) == (70, None)
    assert dataset.class_names[:3] == ("road", "sidewalk", "building")
    assert edged.class_names[26] == "car" and edged.class_names[61] == "car, edge"
    for split, first, count in (("train", 0, 4), ("test", 4, 2)):
        for row in range(count):
            image, ids, instances = label_folders.city_arrays(first + row)
            plain, with_edges = dataset.splits()[split], edged.splits()[split]
            np.testing.assert_array_equal(plain.examples[row], image)
            trained = np.full_like(ids, 255)
            for number, of in ((0, 7), (10, 23), (13, 26)):  # road, sky, car
                trained[ids == of] = number
            np.testing.assert_array_equal(plain.labels[row], trained)
            np.testing.assert_array_equal(with_edges.labels[row] % 35, ids)
            edge = np.zeros_like(ids)
            for y, x in np.ndindex(*ids.shape):
                beside = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
                here = [p for p in beside if 0 <= p[0] < 64 and 0 <= p[1] < 128]
                edge[y, x] = any(instances[p] != instances[y, x] for p in here)
            np.testing.assert_array_equal(with_edges.labels[row] // 35, edge)


def test_pictures_of_cityscapes_are_scaled(cityscapes, tmp_path):
    prepare("cityscapes", cityscapes, tmp_path, size=128)
    dataset = load("cityscapes", tmp_path)
    assert dataset.example_shape == (128, 256, 3)
    road = dataset.train.labels[0][:, 0] == 0
    np.testing.assert_array_equal(road, np.arange(128) >= 64)


def in_color(path):
    with Image.open(path) as image:
        return Image.fromarray(label_folders.voc_palette()[np.array(image)])


def shuffled(path):
    """The same picture with its palette, and the numbers with it, in another order."""
    order = np.random.default_rng(0).permutation(256).astype(np.uint8)
    image = Image.fromarray(np.argsort(order).astype(np.uint8)[np.array(Image.open(path))])
    image.putpalette(label_folders.voc_palette()[order].tobytes())
    return image


RESAVED = {
    "quantized": lambda path: in_color(path).quantize(),
    "adaptive": lambda path: in_color(path).convert("P", palette=Image.Palette.ADAPTIVE),
    "optimized": lambda path: in_color(path).quantize(colors=8),  # a palette of less than 256
    "shuffled": shuffled,
    "gray": lambda path: Image.fromarray(np.array(Image.open(path))).convert("P"),
    "gray quantized": lambda path: Image.fromarray(np.array(Image.open(path))).quantize(),
}


@pytest.mark.parametrize("how", RESAVED)
def test_labels_saved_with_another_palette_are_taken_by_their_colors(
    how, voc, prepared_voc, tmp_path
):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    for path in (source / "VOC2012" / "SegmentationClass").glob("*.png"):
        image = RESAVED[how](path)
        assert image.mode == "P"
        image.save(path, optimize=how == "optimized")
    prepare("voc", source, tmp_path / "D")
    for split, expected in load("voc", prepared_voc).splits().items():
        found = load("voc", tmp_path / "D").splits()[split].labels
        np.testing.assert_array_equal(found, expected.labels)


def other_colors(path):
    """Labels whose numbers are right, in colors of another dataset."""
    with Image.open(path) as image:
        image.load()
        image.putpalette(np.random.default_rng(0).integers(1, 256, 768, dtype=np.uint8).tobytes())
        image.save(path)


def blurred(path):
    image = in_color(path)
    image.resize((50, 50)).resize(image.size).quantize().save(path)


def one_color(path):
    with Image.open(path) as image:
        image.putpalette(bytes(768))
        image.save(path)


@pytest.mark.parametrize("damage", [other_colors, blurred, one_color])
def test_labels_of_other_colors_are_refused_by_name(damage, voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    path = source / "VOC2012" / "SegmentationClass" / f"{VAL[3]}.png"
    damage(path)
    with pytest.raises(ConfigError, match=f"{VAL[3]}: .*color.* Pascal VOC's") as told:
        prepare("voc", source, tmp_path / "D")
    assert "\n" not in str(told.value)


def test_a_palette_of_ids_of_cityscapes_must_be_gray(cityscapes, tmp_path):
    source = shutil.copytree(cityscapes, tmp_path / "cityscapes")
    first, second = list((source / "gtFine").glob("*/*/*_labelIds.png"))[:2]
    ids = np.array(Image.open(first))
    Image.fromarray(ids).quantize().save(first)
    assert not np.array_equal(np.array(Image.open(first)), ids)
    prepare("cityscapes", source, tmp_path / "D")
    prepare("cityscapes", cityscapes, tmp_path / "E")
    for kind in ("train_edges", "test_edges"):
        found, expected = (
            np.load(label_images.place("cityscapes", str(tmp_path / name)) / f"{kind}.npy")
            for name in "DE"
        )
        np.testing.assert_array_equal(found, expected)
    other_colors(second)
    with pytest.raises(ConfigError, match="labels with the color .*gray"):
        prepare("cityscapes", source, tmp_path / "D")


@pytest.mark.parametrize("void", [255, 19])
@pytest.mark.parametrize("place", ["train/*", "val/*", "train/bremen"])
def test_training_ids_in_place_of_ids_are_refused(void, place, cityscapes, tmp_path):
    source = shutil.copytree(cityscapes, tmp_path / "cityscapes")
    trained = np.full(256, void, np.uint8)
    for number, of in ((0, 7), (10, 23), (13, 26)):  # road, sky, car
        trained[of] = number
    paths = list((source / "gtFine").glob(f"{place}/*_labelIds.png"))
    assert paths
    for path in paths:
        label_folders.save_gray(trained[np.array(Image.open(path))], path)
    with pytest.raises(ConfigError, match="^source: got .*gtFine.* training ids") as told:
        prepare("cityscapes", source, tmp_path / "D")
    assert "\n" not in str(told.value)
    shutil.copytree(cityscapes, source, dirs_exist_ok=True)
    assert prepare("cityscapes", source, tmp_path / "D").skipped == {}


def stray(path):
    labels = np.array(Image.open(path))
    labels[3, 4:6] = 77
    label_folders.save_gray(labels, path)


def truncate(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def grow(path):
    with Image.open(path) as image:
        image.resize((image.size[0] + 1, image.size[1])).save(path)


def color(path):
    with Image.open(path) as image:
        image.convert("RGB").save(path)


# What is done to which file of a picture, and what is said.
FAULTS = {
    "voc": [
        ("labels", stray, "label 77 in 2 pixels, instead of 0 to 20 or 255"),
        ("labels", truncate, r"2007_\d*.png cannot be decoded"),
        ("labels", color, r"2007_\d*.png has the mode RGB instead of P or L"),
        ("labels", grow, "labels of 129 x 96 pixels for a picture of 128 x 96"),
        ("image", truncate, r"2007_\d*.jpg cannot be decoded \(.*[Tt]runcated"),
        ("image", pathlib.Path.unlink, r"2007_\d*.jpg is missing"),
    ],
    "cityscapes": [
        ("labels", stray, "label 77 in 2 pixels, instead of 0 to 33 or 255"),
        ("labels", pathlib.Path.unlink, "_labelIds.png is missing"),
        ("instances", pathlib.Path.unlink, "_instanceIds.png is missing"),
        ("instances", grow, "instances of 129 x 64 pixels for a picture of 128 x 64"),
        ("image", truncate, "_leftImg8bit.png cannot be decoded"),
        ("image", pathlib.Path.unlink, "_leftImg8bit.png is missing"),
    ],
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_named_and_counted_and_refused_or_skipped(
    name, voc, cityscapes, tmp_path, capsys
):
    original = {"voc": voc, "cityscapes": cityscapes}[name]
    source = shutil.copytree(original, tmp_path / "source")
    found = label_lists.pictures(name, str(source))
    pictures = (found["train"][:6] + found["test"])[:6]
    if name == "voc":  # The fourth is the one of 128 x 96 pixels.
        assert pictures[3].name == TRAIN[3]
    total = sum(map(len, found.values()))
    for index, (picture, (kind, damage, said)) in enumerate(
        zip(pictures, FAULTS[name], strict=True), start=1
    ):
        damage(pathlib.Path(getattr(picture, kind)))
        if index == 1:
            with pytest.raises(ConfigError, match=f"^source: got .*, where 1 of {total} pictures "):
                prepare(name, source, tmp_path / "D")
            assert not label_images.is_prepared(name, str(tmp_path / "D"))
        reason = re.compile(said)
        result = dict(prepare_label_images._examine((p, FORM[name])) for p in [picture])
        assert reason.search(result[picture.name]["error"]), result
    capsys.readouterr()
    if name == "cityscapes":  # Nothing is left.
        with pytest.raises(ConfigError, match="no usable train picture .label 77 .*is missing"):
            prepare(name, source, tmp_path / "D", max_skipped=1.0)
        shutil.copytree(original, source, dirs_exist_ok=True)
        stray(pathlib.Path(pictures[0].labels))
        assert set(prepare(name, source, tmp_path / "D", max_skipped=1.0).skipped) == {
            pictures[0].name
        }
        return
    report = prepare(name, source, tmp_path / "D", max_skipped=0.5)
    assert set(report.skipped) == {picture.name for picture in pictures}
    said = capsys.readouterr().err
    assert all(f"skipped: {picture.name}: " in said for picture in pictures)
    lines = []
    dataset = data.load(name, str(tmp_path / "D"), notice=lines.append)
    assert lines[0].startswith("dataset: 6 of 12 pictures were skipped when voc was prepared")
    assert len(dataset.train) == 2 and dataset.train.labels.max() == 255
    # The same command takes what has been repaired.
    shutil.copytree(original, source, dirs_exist_ok=True)
    assert prepare(name, source, tmp_path / "D").skipped == {}
    assert len(load(name, tmp_path / "D").train) == 8


FORM = {name: prepare_label_images.Form(name, 64) for name in label_images.NAMES}


def test_what_is_intact_is_left_alone_and_another_size_is_made_anew(voc, prepared_voc, tmp_path):
    data_dir = shutil.copytree(prepared_voc, tmp_path / "D")
    before = {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")}
    prepare("voc", voc, data_dir, size=None)
    assert {path: path.stat().st_mtime_ns for path in data_dir.rglob("*")} == before
    prepare("voc", voc, data_dir, size=128)
    assert load("voc", data_dir).example_shape == (128, 128, 3)
    assert load("voc", data_dir).fingerprint != load("voc", prepared_voc).fingerprint


def test_a_file_that_was_replaced_is_read_again(voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    prepare("voc", source, tmp_path / "D")
    path = source / "VOC2012" / "SegmentationClass" / f"{VAL[0]}.png"
    label_folders.save_gray(np.full((36, 48), 5, np.uint8), path)
    prepare("voc", source, tmp_path / "D")
    assert np.count_nonzero(load("voc", tmp_path / "D").test.labels[0] == 5) == 36 * 48


KILLED = {"checking": (7, 12), "storing": (0, 7), "publishing": (0, 0)}


@pytest.mark.parametrize("point", KILLED)
def test_a_killed_run_goes_on_where_it_was(
    point, voc, prepared_voc, tmp_path, monkeypatch, with_fault
):
    data_dir = tmp_path / "data"
    ran = with_fault(f"kill_at_{point}_pictures", "prepare_voc", voc, data_dir)
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert not label_images.is_prepared("voc", str(data_dir))
    (incomplete,) = data_dir.glob(".*.incomplete")
    with open(incomplete / "checked.jsonl", "a") as journal:
        journal.write('["cut off in the mid')  # a line that was being written
    jobs = []
    in_order = prepare_label_images.in_order

    def counted(run, function, todo, workers):
        jobs.append(len(todo))
        return in_order(run, function, todo, workers)

    monkeypatch.setattr(prepare_label_images, "in_order", counted)
    prepare("voc", voc, data_dir)
    assert tuple(jobs) == KILLED[point]
    for name, split in load("voc", data_dir).splits().items():
        expected = load("voc", prepared_voc).splits()[name]
        np.testing.assert_array_equal(split.examples, expected.examples)
        np.testing.assert_array_equal(split.labels, expected.labels)
    assert [path.name for path in data_dir.iterdir()] == ["voc2012_segmentation"]


def test_a_picture_that_changes_while_it_is_prepared_is_named_and_the_next_run_goes_on(
    voc, tmp_path, monkeypatch
):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    write = prepare_label_images._write

    def damage_first(*arguments):
        truncate(source / "VOC2012" / "JPEGImages" / f"{VAL[1]}.jpg")
        return write(*arguments)

    monkeypatch.setattr(prepare_label_images, "_write", damage_first)
    with pytest.raises(UserError, match=f"^source: got {VAL[1]}, which was .*cannot be decoded"):
        prepare("voc", source, tmp_path / "D")
    monkeypatch.setattr(prepare_label_images, "_write", write)
    assert set(prepare("voc", source, tmp_path / "D", max_skipped=0.1).skipped) == {VAL[1]}


def test_damage_is_told_at_loading_and_repaired_by_preparing(voc, prepared_voc, tmp_path):
    data_dir = shutil.copytree(prepared_voc, tmp_path / "D")
    folder = label_images.place("voc", str(data_dir))
    with open(folder / "train_images.npy", "r+b") as file:
        file.truncate(1000)
    command = f"python -m experiments.prepare_data voc --source=FOLDER --data_dir={data_dir}"
    with pytest.raises(
        DatasetNotPrepared, match=f"is damaged: train_images.npy has 1000 .*: {command}"
    ):
        load("voc", data_dir)
    prepare("voc", voc, data_dir)
    assert store.damage(folder) is None and len(load("voc", data_dir).train) == 8


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (f"{TRAIN[0]}\n{TRAIN[1]}\n{TRAIN[0]}\n", f"train.txt, line 3: got {TRAIN[0]} again"),
        (f"{TRAIN[0]} 1\n", "train.txt, line 1: got '2007_000000 1'; accepted: the name"),
        ("../../etc/passwd\n", "train.txt, line 1: got '../../etc/passwd'; accepted: the name"),
        (f"{VAL[1]}\n", f"got {VAL[1]} in train.txt and in val.txt"),
        ("\n", "train.txt is empty"),
        (None, "train.txt cannot be read"),
    ],
)
def test_lists_of_voc_that_are_not_the_official_ones(lines, said, voc, tmp_path):
    source = shutil.copytree(voc, tmp_path / "VOCdevkit")
    path = source / "VOC2012" / "ImageSets" / "Segmentation" / "train.txt"
    if lines is None:
        path.unlink()
    else:
        path.write_text(lines)
    with pytest.raises(UserError, match=re.escape(said)):
        prepare("voc", source, tmp_path / "D")
    assert not (tmp_path / "D").exists()


def test_flags_and_folders_that_do_not_fit_are_named(voc, tmp_path):
    with pytest.raises(UserError, match="^source: got .* is not a folder.*accepted: a folder VOC"):
        prepare("voc", tmp_path, tmp_path / "D")
    with pytest.raises(UserError, match="^source: got .* is not a folder.*leftImg8bit"):
        prepare("cityscapes", voc, tmp_path / "D")
    for size in (0, 63, 65, 2048):
        with pytest.raises(UserError, match=f"^size: got {size}; accepted: multiples of 64"):
            prepare("voc", voc, tmp_path / "D", size=size)
    assert not (tmp_path / "D").exists()


class PixelClassifier(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, images, train):
        return nn.Dense(self.classes)(images)


@pytest.mark.parametrize("name", label_images.NAMES)
def test_one_epoch_of_training(name, prepared_voc, prepared_cityscapes):
    folder = {"voc": prepared_voc, "cityscapes": prepared_cityscapes}[name]
    dataset = load(name, folder)
    schedule = optax.constant_schedule(0.1)
    model = PixelClassifier(dataset.num_classes)
    task = segmentation(model, dataset, optax.sgd(schedule), schedule)
    engine = Executor(task, dataset, 2, HOST)
    state = engine.initial_state(0)
    before = engine.evaluate(state, dataset.test)["loss"]
    order = batches(0, len(dataset.train), 2, 0)
    for _ in range(len(dataset.train) // 2):
        state = engine.train(state, order, 1, 0)
    after = engine.evaluate(state, dataset.test)
    assert after["loss"] < before and 0 <= after["mean_iou"] < 1


def test_the_manifest_says_where_the_pictures_come_from(voc, prepared_voc):
    folder = label_images.place("voc", str(prepared_voc))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["source"] == str(voc) and manifest["size"] == 64
    assert "3 with the labels of SegmentationClassAug" in manifest["provenance"]
    path = voc / "VOC2012" / "JPEGImages" / f"{VAL[0]}.jpg"
    stamp = manifest["pictures"]["test"][VAL[0]][0]
    assert stamp == [path.stat().st_size, path.stat().st_mtime_ns]
