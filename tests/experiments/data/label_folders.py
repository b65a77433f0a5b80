"""Small folders in the layouts of Pascal VOC and Cityscapes, for tests."""

from __future__ import annotations

import numpy as np
from PIL import Image

TRAIN = tuple(f"2007_{i:06d}" for i in range(6))
AUGMENTED = tuple(f"2008_{i:06d}" for i in range(2))
VAL = tuple(f"2009_{i:06d}" for i in range(4))
VOC_SIZES = ((48, 36), (36, 48), (64, 64), (128, 96))  # width, height; in turn


def voc_labels(index, width, height):
    """A rectangle of one class with a rim of void, on background."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 4 : -(height // 4), width // 4 : -(width // 4)] = 255
    labels[height // 4 + 2 : -(height // 4) - 2, width // 4 + 2 : -(width // 4) - 2] = 1 + index
    return labels


def write_voc(root):
    """A folder VOCdevkit of 6 + 2 training and 4 validation pictures; returns it.

    The 2 have labels in SegmentationClassAug alone, which also has other labels of the first
    training picture, and those of the first validation picture.
    """
    voc = root / "VOC2012"
    lists = voc / "ImageSets" / "Segmentation"
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationClassAug"):
        (voc / folder).mkdir(parents=True)
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("\n".join(TRAIN) + "\n")
    (lists / "val.txt").write_text("\n".join(VAL) + "\n")
    for index, name in enumerate(TRAIN + AUGMENTED + VAL):
        width, height = VOC_SIZES[index % len(VOC_SIZES)]
        image = np.full((height, width, 3), 20 * index, np.uint8)
        Image.fromarray(image).save(voc / "JPEGImages" / f"{name}.jpg", quality=95)
        labels = voc_labels(index, width, height)
        if name in AUGMENTED:
            save_gray(labels, voc / "SegmentationClassAug" / f"{name}.png")
        else:
            save_palette(labels, voc / "SegmentationClass" / f"{name}.png")
    save_gray(np.full((36, 48), 20, np.uint8), voc / "SegmentationClassAug" / f"{TRAIN[0]}.png")
    save_gray(np.full((64, 64), 7, np.uint8), voc / "SegmentationClassAug" / f"{VAL[0]}.png")
    return root


def save_gray(labels, path):
    Image.fromarray(labels).save(path)


# Of Pascal VOC's development kit: the colors of labels 0 to 20, and of void.
VOC_COLORS = (
    *((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128)),
    *((0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0)),
    *((64, 0, 128), (192, 0, 128), (64, 128, 128), (192, 128, 128), (0, 64, 0), (128, 64, 0)),
    *((0, 192, 0), (128, 192, 0), (0, 64, 128)),
)
VOID_COLOR = (224, 224, 192)


def voc_palette():
    """uint8 (256, 3); labels that VOC does not have are white."""
    palette = np.full((256, 3), 255, np.uint8)
    palette[:21], palette[255] = VOC_COLORS, VOID_COLOR
    return palette


def save_palette(labels, path):
    image = Image.fromarray(labels).copy()
    image.putpalette(voc_palette().tobytes())
    assert image.mode == "P"
    image.save(path)


CITIES = {"train": ("aachen", "bremen"), "val": ("lindau",)}
CITY_SIZE = (128, 64)  # width, height


def city_arrays(index):
    """A picture, ids and instances: a road below the sky, with two cars that touch."""
    width, height = CITY_SIZE
    rng = np.random.default_rng(index)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ids = np.full((height, width), 23, np.uint8)
    ids[height // 2 :] = 7
    ids[:2] = 3  # out of the region of interest
    instances = ids.astype(np.int32)
    left = 10 + 5 * index
    for number in range(2):
        place = np.s_[
            height // 2 - 8 : height // 2 + 8, left + 20 * number : left + 20 * number + 20
        ]
        ids[place] = 26
        instances[place] = 26_000 + number
    return image, ids, instances


def write_cityscapes(root):
    """A folder of Cityscapes with 4 training pictures of 2 cities and 2 of a third; returns it."""
    index = 0
    for split, cities in CITIES.items():
        for city in cities:
            for frame in range(2):
                name = f"{city}_{frame:06d}_000019"
                images, truth = (root / kind / split / city for kind in ("leftImg8bit", "gtFine"))
                for folder in (images, truth):
                    folder.mkdir(parents=True, exist_ok=True)
                image, ids, instances = city_arrays(index)
                Image.fromarray(image).save(images / f"{name}_leftImg8bit.png")
                Image.fromarray(ids).save(truth / f"{name}_gtFine_labelIds.png")
                Image.fromarray(instances.astype(np.uint16)).save(
                    truth / f"{name}_gtFine_instanceIds.png"
                )
                index += 1
    return root
