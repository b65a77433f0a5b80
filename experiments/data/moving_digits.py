"""`moving_digits`: real scanned digits that move, where the class is the motion.

A frame shows a digit at a place, an angle and a scale. In every class and in every frame the place
is uniform on the frame (which wraps around), the angle is uniform, and the logarithm of the scale
is uniform. So a single frame says nothing about the class; the change from frame to frame does.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from experiments.data import digits
from experiments.data.dataset import Dataset, Split
from experiments.system.errors import ConfigError

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
# Ranges of the change over a whole clip of any length: of the place, in frame widths; of the angle,
# in radians; of the logarithm of the scale.
_SHIFT = (0.25, 0.6)
_TURN = (np.pi / 2, 7 * np.pi / 6)
_ZOOM = (0.5, 0.85)
_SCALE = (np.log(0.6), np.log(1.4))  # logarithm of the digit's width over half the frame's width
_CONTRAST = (0.6, 1.0)
_NOISE = (0.0, 0.1)  # standard deviation; white is 1
_POOLS = {"train": 0.6, "validation": 0.15, "test": 0.25}  # shares of the scanned digits
_TEXTURE = 64  # pixels; a scan is smoothly enlarged to this size before it is sampled
_CLIPS_AT_ONCE = 64
_RANGES = {
    "size": (16, 512),
    "frames": (2, 256),
    "train": (1, 10**6),
    "validation": (0, 10**6),
    "test": (1, 10**6),
    "seed": (0, 2**63),
}


@dataclasses.dataclass(frozen=True)
class Path:
    """Place, angle and scale of the digit in each frame of each clip.

    Args:
      rows, columns: (N, T), the digit's centre, in frame widths; it wraps around at 1.
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
    """Generates the clips; the same arguments give the same clips.

    The three splits show different scans. The clips of one split do not depend on the number of
    clips in another, and a smaller split is the beginning of a larger one.

    Args:
      size: height and width of a frame in pixels, 16 to 512.
      frames: number of frames of a clip, 2 to 256.
      train, validation, test: the number of clips, up to a million; the classes take turns.
      seed: seed of everything that is drawn, also of the split of the scans.

    Returns:
      The dataset, of clips (frames, size, size, 3).

    Raises:
      ConfigError: an argument is too small or too large.

    Example:
      >>> dataset = load(size=16, frames=4, train=20, validation=0, test=10)
      >>> dataset.train.examples.shape, dataset.class_names[:3]
      ((20, 4, 16, 16, 3), ('still', 'left', 'right'))
    """
    counts = {"train": train, "validation": validation, "test": test}
    given = {"size": size, "frames": frames, "seed": seed, **counts}
    for name, value in given.items():
        least, most = _RANGES[name]
        if not least <= value <= most:
            raise ConfigError(name, value, f"integers from {least} to {most}")
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
    uniform = generator.random((count, 8))  # one row per clip, so more clips only add rows
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
      uniform: (N, 5) in [0, 1): the first row, column, angle and scale, and the speed.
      frames: T.

    Returns:
      The place, angle and scale in every frame.

    Example:
      >>> path = paths(np.array([MOTIONS.index("right")]), np.full((1, 5), 0.5), frames=2)
      >>> path.columns.round(4).tolist(), path.rows.tolist()
      ([[0.5, 0.925]], [[0.5, 0.5]])
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

    # The logarithm of the scale goes back and forth between its limits. A triangle wave with a
    # uniform phase is uniform in every frame.
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
    """Draws each clip's digit along its path.

    Args:
      textures: uint8 (N, H, H), white on black.
      path: the path of N clips of T frames.
      size: height and width of a frame in pixels.

    Returns:
      The frames, uint8 (N, T, size, size).
    """
    side = textures.shape[1]
    pixel = (np.arange(size, dtype=np.float32) + 0.5) / size

    def offset(centre):
        # From the centre to each pixel, the shorter way around the frame: in [-1/2, 1/2).
        return (pixel - centre[..., None].astype(np.float32) + 0.5) % 1 - 0.5

    down, right = offset(path.rows)[..., :, None], offset(path.columns)[..., None, :]
    scale = (side / path.scales).astype(np.float32)[..., None, None]
    cosine = np.cos(path.angles).astype(np.float32)[..., None, None] * scale
    sine = np.sin(path.angles).astype(np.float32)[..., None, None] * scale
    # The place in the texture that a pixel shows: its offset, turned back by the angle.
    row = np.floor(cosine * down - sine * right + side / 2).astype(np.int32)
    column = np.floor(sine * down + cosine * right + side / 2).astype(np.int32)
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    index = np.where(inside, row * side + column, 0)
    index += (np.arange(len(textures), dtype=np.int32) * side * side)[:, None, None, None]
    return np.where(inside, textures.reshape(-1)[index], np.uint8(0))


def _between(limits: tuple[float, float], uniform: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * uniform
