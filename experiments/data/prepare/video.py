"""From a video to clips of 112x112 pixels. Worker processes import this file and little else.

K. Chavez, "3D ConvNets with Optical Flow Based Regularization", section 5.1: from each
video 4 clips of 16 frames, equally spaced in time; a centre crop of 224x224, downsampled by 2.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import pathlib
import struct
from collections.abc import Iterable, Iterator

import numpy as np

CLIPS, FRAMES, CROP = 4, 16, 224
CLIP_SHAPE = (FRAMES, CROP // 2, CROP // 2, 3)


class Unreadable(ValueError):
    """A video that no clips can be taken from; says why."""


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video file, decoded by PyAV."""

    path: str

    def stamp(self) -> list[int]:
        """Changes when the file does."""
        return _stamp(self.path)

    def probe(self) -> tuple[int, int, int]:
        """(frames, height, width), by decoding it all.

        Raises:
          Unreadable: missing, empty, not a video, or truncated.
        """
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            frames = sum(1 for _ in _decoded(container, stream))
            # The header counts the frames; some encoders count one too many.
            if frames < 0.95 * stream.frames - 1:
                raise Unreadable(f"damaged: {frames} of {stream.frames} frames")
            return frames, stream.codec_context.height, stream.codec_context.width

    def pick(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of these increasing indices, RGB uint8 (H, W, 3)."""
        wanted = set(indices)
        with _opened(self.path) as container:
            for index, frame in enumerate(_decoded(container, container.streams.video[0])):
                if index in wanted:
                    yield frame.to_ndarray(format="rgb24")


@dataclasses.dataclass(frozen=True)
class TfdsVideo:
    """A video in a record file of TFDS, whose frames are stored as JPEG or PNG files.

    Args:
      path: the record file.
      position: of an array_record file, the record's index; of a TFRecord file, its offset.
      label: what the record must hold, so that a wrong record is noticed.
    """

    path: str
    position: int
    label: int

    def stamp(self) -> list[int]:
        """Changes when the record file does."""
        return _stamp(self.path)

    def probe(self) -> tuple[int, int, int]:
        """(frames, height, width), by decoding them all.

        Raises:
          Unreadable: the record or a frame of it is damaged, or it has no frames.
        """
        shapes = [_image(frame).shape for frame in self._frames()]
        if not shapes:
            raise Unreadable("no frames")
        return len(shapes), *shapes[0][:2]

    def pick(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of these indices, RGB uint8 (H, W, 3)."""
        frames = self._frames()
        return (_image(frames[index]) for index in indices)

    def _frames(self) -> list[bytes]:
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            example = tf_example_pb2.Example.FromString(self._record()).features.feature
            (label,) = example["label"].int64_list.value
        except Exception as error:  # Three libraries read it, each with errors of its own.
            raise Unreadable(f"damaged record: {_first_line(error)}") from error
        if label != self.label:
            raise ValueError(
                f"--lists: record {self.position} of {self.path} has label {label}, where the list "
                f"says {self.label}; accepted are the official lists that this folder was made with"
            )
        return list(example["video"].bytes_list.value)

    def _record(self) -> bytes:
        if "array_record" in pathlib.Path(self.path).name:
            from array_record.python.array_record_module import ArrayRecordReader

            reader = ArrayRecordReader(self.path)
            try:
                return reader.read([self.position])[0]
            finally:
                reader.close()
        with open(self.path, "rb") as file:
            file.seek(self.position)
            (length,) = struct.unpack("<Q", file.read(12)[:8])
            return file.read(length)


def starts(frames: int) -> list[int]:
    """The first frames of the clips: equally spaced from the first possible to the last.

    A video of fewer than 64 frames gives clips that overlap.

    Raises:
      Unreadable: the video is shorter than one clip.
    """
    if frames < FRAMES:
        raise Unreadable(f"too short: {frames} of {FRAMES} frames")
    return np.rint(np.linspace(0, frames - FRAMES, CLIPS)).astype(int).tolist()


def clips(video: VideoFile | TfdsVideo, frames: int) -> np.ndarray:
    """The clips of a video, uint8 (4, 16, 112, 112, 3).

    Args:
      video: the video.
      frames: how many it has.

    Raises:
      Unreadable: it has fewer frames after all.
    """
    first = starts(frames)
    wanted = sorted({start + offset for start in first for offset in range(FRAMES)})
    small = [shrink(frame) for frame in video.pick(wanted)]
    if len(small) < len(wanted):
        raise Unreadable("it has changed since its frames were counted")
    row = {index: row for row, index in enumerate(wanted)}
    small = np.stack(small)
    return np.stack([small[[row[start + offset] for offset in range(FRAMES)]] for start in first])


def shrink(frame: np.ndarray) -> np.ndarray:
    """A frame's centre, 224x224, averaged over 2x2 pixels: uint8 (112, 112, 3).

    A frame that is smaller than 224 on a side is first scaled up until it is not, its proportions
    kept.

    Args:
      frame: uint8 (H, W, 3).
    """
    height, width = frame.shape[:2]
    if min(height, width) < CROP:
        from PIL import Image

        factor = CROP / min(height, width)
        size = max(CROP, round(width * factor)), max(CROP, round(height * factor))
        frame = np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC))
        height, width = frame.shape[:2]
    top, left = (height - CROP) // 2, (width - CROP) // 2
    centre = frame[top : top + CROP, left : left + CROP]
    rows = centre[0::2].astype(np.uint16) + centre[1::2]
    return ((rows[:, 0::2] + rows[:, 1::2] + 2) >> 2).astype(np.uint8)


def _opened(path: str):
    """A container with a video stream."""
    import av

    try:
        if os.stat(path).st_size == 0:
            raise Unreadable("empty file")
        container = av.open(path)
    except FileNotFoundError as error:
        raise Unreadable("missing") from error
    except (av.FFmpegError, OSError) as error:
        raise Unreadable(f"not a video: {error.strerror or error}") from error
    if not container.streams.video:
        container.close()
        raise Unreadable("no video stream")
    return container


def _decoded(container, stream) -> Iterator:
    """The frames; packets that cannot be decoded are left out, as FFmpeg's own program does."""
    import av

    try:
        for packet in container.demux(stream):
            with contextlib.suppress(av.FFmpegError):
                yield from packet.decode()
    except av.FFmpegError as error:
        raise Unreadable(f"reading fails: {error.strerror or error}") from error


def _image(encoded: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"damaged frame: {_first_line(error)}") from error


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    except OSError:
        return []


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0][:200]
