"""`digits`: scikit-learn's 1,797 scanned digits, which need no download.

E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning
Repository, 1998; the copy that scikit-learn installs.
"""

from __future__ import annotations

import importlib.util
import pathlib

import numpy as np

from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError

TRAIN = 1437
LARGEST_SIZE = 512  # pixels; 1.4 GB
# The scans of both splits in their order, train first: what scikit-learn's `train_test_split` gives
# for a share of 0.2, stratified, random_state=0. Importing it takes a third of a short command.
_SPLIT = pathlib.Path(__file__).with_name("digits_split.npy")


def load(size: int = 32) -> Dataset:
    """The digits as (size, size, 3) images in a fixed stratified split of 1,437 and 360.

    Args:
      size: height and width in pixels, at least 8.

    Returns:
      The dataset; equal every time it is loaded.

    Raises:
      ConfigError: size below 8 or above 512.

    Example:
      >>> dataset = load(size=8)
      >>> dataset.train.examples.shape, len(dataset.test), dataset.num_classes
      ((1437, 8, 8, 3), 360, 10)
    """
    if not 8 <= size <= LARGEST_SIZE:
        raise ConfigError("size", size, f"8 to {LARGEST_SIZE} pixels")
    images, labels = scans()
    images = np.repeat(upsample(images, size)[..., None], 3, axis=-1)
    train, test = np.split(np.load(_SPLIT), [TRAIN])
    return Dataset(
        name="digits",
        train=Split(images[train], labels[train]),
        test=Split(images[test], labels[test]),
        class_names=tuple("0123456789"),
        provenance=(
            "scikit-learn's digits (UCI, optical recognition of handwritten digits): 1,797 scans "
            f"of 8x8 pixels, scaled to {size}x{size}x3 by cubic splines; a fixed stratified split"
        ),
        mirror_symmetric=False,
    )


def scans() -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 original scans: float32 (N, 8, 8) in [0, 1], and int32 labels (N,)."""
    found = importlib.util.find_spec("sklearn")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("scikit-learn, which has the digits, is not installed")
    # Its file is read without its import, which takes seconds.
    folder = pathlib.Path(found.origin).parent
    table = np.loadtxt(folder / "datasets/data/digits.csv.gz", delimiter=",")
    images = table[:, :-1].reshape(-1, 8, 8)
    return (images / 16.0).astype(np.float32), table[:, -1].astype(np.int32)


def upsample(images: np.ndarray, size: int) -> np.ndarray:
    """Scales images (N, 8, 8) in [0, 1] smoothly to uint8 (N, size, size).

    Pixel areas are kept aligned (`grid_mode`), so the digit is not shifted.

    Example:
      >>> upsample(np.ones((2, 8, 8), np.float32), 16).shape
      (2, 16, 16)
    """
    from scipy import ndimage

    # Spline interpolation is linear, and the same along rows and columns: one matrix does both.
    matrix = np.stack(
        [
            ndimage.zoom(unit, size / len(unit), order=3, mode="grid-constant", grid_mode=True)
            for unit in np.eye(images.shape[1], dtype=np.float32)
        ],
        axis=1,
    )
    scaled = matrix @ images @ matrix.T
    return np.rint(255.0 * np.clip(scaled, 0.0, 1.0)).astype(np.uint8)
