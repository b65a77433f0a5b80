"""`moving_digits`: real scanned digits that move, where the class is the motion.

A frame is a digit at a place, an angle and a scale. In every class and in every frame the place is
uniform on the frame (which wraps around), the angle is uniform, and so is the logarithm of the
scale: no frame by itself says anything about the class; what changes from frame to frame does.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.data import digits
from experiments.data.dataset import Dataset, Split

MOTIONS = (
    *("still", "left", "right", "up", "down", "down_right", "up_right"),
    *("clockwise", "counter_clockwise", "zoom"),
)
_DIRECTIONS = {  # (rows down, columns right)
    "left": (0, -1),
    "right": (0, 1),
    "up": (-1, 0),
    "down": (1, 0),
    "down_right": (0.5**0.5, 0.5**0.5),
    "up_right": (-(0.5**0.5), 0.5**0.5),
}
# Over a whole clip, whatever its length: part of the frame's width, radians, logarithm of scale.
_SHIFT = (0.25, 0.6)
_TURN = (np.pi / 2, 7 * np.pi / 6)
_ZOOM = (0.5, 0.85)
_SCALE = (np.log(0.6), np.log(1.4))  # times half the frame's width is the digit's
_CONTRAST = (0.6, 1.0)
_NOISE = (0.0, 0.1)  # standard deviation, where 1 is white
_POOLS = {"train": 0.6, "validation": 0.15, "test": 0.25}  # of the scanned digits
_TEXTURE = 64  # pixels that a scan is smoothly enlarged to before it is sampled
_CLIPS_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Path:
    """Where a digit is in each frame of each clip.

    Args:
      rows, columns: (N, T), the centre, in frame widths; it wraps around at 1.
      angles: (N, T), radians, clockwise as seen.
      scales: (N, T), the digit's width in frame widths.
    """

    rows: np.ndarray
    columns: np.ndarray
    angles: np.ndarray
    scales: np.ndarray


def load(
    size: int = 32,
    frames: int = 16,
    train: int = 1000,
    validation: int = 300,
    test: int = 500,
    seed: int = 0,
) -> Dataset:
    """Generates the clips; the same for the same arguments.

    The three splits show different scans. The clips of one split do not depend on how many
    another has, and a smaller split is the beginning of a larger one.

    Args:
      size: height and width of a frame in pixels, at least 16.
      frames: of a clip, at least 2.
      train, validation, test: the number of clips; the classes take turns.
      seed: of everything that is drawn, the split of the scans included.

    Returns:
      The dataset, of clips (frames, size, size, 3).

    Raises:
      ValueError: naming the argument that is too small.
    """
    counts = {"train": train, "validation": validation, "test": test}
    least = {"size": 16, "frames": 2, "train": 1, "validation": 0, "test": 1, "seed": 0}
    given = {"size": size, "frames": frames, "seed": seed, **counts}
    for name, value in given.items():
        if value < least[name]:
            raise ValueError(f"{name}: got {value}; accepted are integers from {least[name]} on")
    textures = digits.upsample(digits.scans()[0], _TEXTURE)
    order = np.random.default_rng([seed, 0]).permutation(len(textures))
    ends = np.rint(np.cumsum(list(_POOLS.values())) * len(textures)).astype(int)
    pools = dict(zip(_POOLS, np.split(order, ends[:-1]), strict=True))
    splits = {}
    for stream, (name, count) in enumerate(counts.items(), start=1):
        generators = [np.random.default_rng([seed, stream, part]) for part in range(2)]
        splits[name] = _split(textures[pools[name]], count, frames, size, *generators)
    return Dataset(
        name="moving_digits",
        **splits,
        class_names=MOTIONS,
        provenance=(
            "scikit-learn's scanned digits (UCI) in ten kinds of motion, generated with seed "
            f"{seed}; train, validation and test show different scans"
        ),
        mirror_symmetric=False,
    )


def _split(textures, count, frames, size, generator, noise_generator) -> Split:
    labels = np.arange(count, dtype=np.int32) % len(MOTIONS)
    uniform = generator.random((count, 8))  # a row per clip, so that more clips only add rows
    path = paths(labels, uniform[:, :5], frames)
    chosen = textures[(uniform[:, 5] * len(textures)).astype(int)]
    per_clip = uniform[:, 6:, None, None, None, None].astype(np.float32)
    contrast, noise = _between(_CONTRAST, per_clip[:, 0]), _between(_NOISE, per_clip[:, 1])
    clips = np.empty((count, frames, size, size, 3), np.uint8)
    for start in range(0, count, _CLIPS_AT_ONCE):
        part = slice(start, start + _CLIPS_AT_ONCE)
        here = Path(*(values[part] for values in dataclasses.astuple(path)))
        clean = render(chosen[part], here, size).astype(np.float32)[..., None]
        drawn = noise_generator.standard_normal((*clean.shape[:-1], 3), np.float32)
        noisy = clean * contrast[part] + drawn * (255 * noise[part])
        clips[part] = np.clip(np.rint(noisy), 0, 255)
    return Split(clips, labels)


def paths(labels: np.ndarray, uniform: np.ndarray, frames: int) -> Path:
    """The paths of clips of these classes.

    Args:
      labels: (N,), indices into `MOTIONS`.
      uniform: (N, 5) in [0, 1): the row, column, angle and scale to start from, and the speed.
      frames: T.
    """
    time = np.linspace(0.0, 1.0, frames)
    speed = uniform[:, 4]
    shift, turn, zoom = (_between(limits, speed) for limits in (_SHIFT, _TURN, _ZOOM))
    directions = np.array([_DIRECTIONS.get(name, (0.0, 0.0)) for name in MOTIONS])[labels]
    turns = {"clockwise": 1.0, "counter_clockwise": -1.0}
    turning = np.array([turns.get(name, 0.0) for name in MOTIONS])[labels]
    zooming = np.array([float(name == "zoom") for name in MOTIONS])[labels]

    def along(start, rate):
        return start[:, None] + rate[:, None] * time

    # The logarithm of the scale goes back and forth between its limits: a triangle wave, which
    # is uniform in every frame when its phase is.
    low, high = _SCALE
    phase = along(2 * uniform[:, 3], zooming * zoom / (high - low)) % 2
    logarithm = low + (high - low) * (1 - np.abs(1 - phase))
    return Path(
        rows=along(uniform[:, 0], directions[:, 0] * shift) % 1,
        columns=along(uniform[:, 1], directions[:, 1] * shift) % 1,
        angles=along(2 * np.pi * uniform[:, 2], turning * turn),
        scales=0.5 * np.exp(logarithm),
    )


def render(textures: np.ndarray, path: Path, size: int) -> np.ndarray:
    """Frames (N, T, size, size), uint8: each clip's digit, where its path says it is.

    Args:
      textures: uint8 (N, H, H), white on black.
      path: of N clips of T frames.
      size: of a frame, in pixels.
    """
    side = textures.shape[1]
    pixel = (np.arange(size, dtype=np.float32) + 0.5) / size

    def offset(centre):  # from the centre to each pixel the short way round, in [-1/2, 1/2)
        return (pixel - centre[..., None].astype(np.float32) + 0.5) % 1 - 0.5

    down, right = offset(path.rows)[..., :, None], offset(path.columns)[..., None, :]
    scale = (side / path.scales).astype(np.float32)[..., None, None]
    cosine = np.cos(path.angles).astype(np.float32)[..., None, None] * scale
    sine = np.sin(path.angles).astype(np.float32)[..., None, None] * scale
    # Turned back by the angle: where in the texture the pixel's colour is found.
    row = np.floor(cosine * down - sine * right + side / 2).astype(np.int32)
    column = np.floor(sine * down + cosine * right + side / 2).astype(np.int32)
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    index = np.where(inside, row * side + column, 0)
    index += (np.arange(len(textures), dtype=np.int32) * side * side)[:, None, None, None]
    return np.where(inside, textures.reshape(-1)[index], np.uint8(0))


def _between(limits: tuple[float, float], uniform: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * uniform
