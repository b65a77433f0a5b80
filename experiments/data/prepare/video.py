"""From a video to clips of 112x112 pixels. Worker processes import this file and little else.

K. Chavez, "3D ConvNets with Optical Flow Based Regularization", section 5.1: from each
video 4 clips of 16 frames, equally spaced in time; a centre crop of 224x224, downsampled by 2.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from experiments.data import tfrecord
from experiments.system.errors import ConfigError

CLIPS, FRAMES, CROP = 4, 16, 224
CLIP_SHAPE = (FRAMES, CROP // 2, CROP // 2, 3)
# What a header may promise more than a video has: encoders count off by some frames.
_SPARE_FRAMES, _SPARE_SHARE = 2, 0.05


class Unreadable(ValueError):
    """A video that no clips can be taken from; the message says why."""


@dataclasses.dataclass(frozen=True)
class VideoFile:
    """A video file, decoded by PyAV; frames are turned and mirrored as the file says."""

    path: str

    def stamp(self) -> list[int]:
        """Size and time of the last change; it changes when the file does."""
        return _stamp(self.path)

    def probe(self) -> tuple[int, int, int]:
        """(frames, height, width), by decoding all frames.

        Raises:
          Unreadable: missing, empty, not a video, truncated, or a frame of it is damaged.
        """
        with _opened(self.path) as container:
            stream = container.streams.video[0]
            frames, last = 0, None
            for frames, last in enumerate(_decoded(container, stream), start=1):  # noqa: B007
                pass
            if last is None:
                raise Unreadable(f"damaged: 0 of {stream.frames} frames")
            if frames < _least(stream.frames) and not _reaches_the_end(container, stream, last):
                raise Unreadable(f"damaged: {frames} of {stream.frames} frames")
            height, width = last.height, last.width
            return (frames, width, height) if _orientation(last)[0] else (frames, height, width)

    def pick(self, indices: Iterable[int]) -> Iterator[np.ndarray]:
        """The frames of these increasing indices, RGB uint8 (H, W, 3)."""
        wanted = set(indices)
        with _opened(self.path) as container:
            for index, frame in enumerate(_decoded(container, container.streams.video[0])):
                if index in wanted:
                    yield _upright(frame)


@dataclasses.dataclass(frozen=True)
class TfdsVideo:
    """A video in a record file of TFDS, whose frames are stored as JPEG or PNG files.

    Args:
      path: the record file.
      position: index of the record in an array_record file, or its offset in a TFRecord file.
      label: label that the record must hold, so that a wrong record is noticed.
    """

    path: str
    position: int
    label: int

    def stamp(self) -> list[int]:
        """Size and time of the last change of the record file."""
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
        except Exception as error:  # Three libraries read it; each has its own errors.
            raise Unreadable(f"damaged record: {_first_line(error)}") from error
        if label != self.label:
            raise ConfigError(
                "lists",
                f"lists that give record {self.position} of {self.path} the label {self.label}, "
                f"where it has {label}",
                "the official lists that this folder was made with",
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
        return tfrecord.read(self.path, self.position)


def starts(frames: int) -> list[int]:
    """The first frames of the clips: equally spaced from the first possible to the last.

    A video of fewer than 64 frames gives clips that overlap.

    Raises:
      Unreadable: the video is shorter than one clip.

    Example:
      >>> starts(64), starts(19)
      ([0, 16, 32, 48], [0, 1, 2, 3])
    """
    if frames < FRAMES:
        raise Unreadable(f"too short: {frames} of {FRAMES} frames")
    return np.rint(np.linspace(0, frames - FRAMES, CLIPS)).astype(int).tolist()


def clips(video: VideoFile | TfdsVideo, frames: int) -> np.ndarray:
    """The clips of a video, uint8 (4, 16, 112, 112, 3).

    Args:
      video: the video.
      frames: the number of its frames, as `probe` counted them.

    Raises:
      Unreadable: it has fewer frames now.
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

    Example:
      >>> shrink(np.full((240, 320, 3), 7, np.uint8)).shape
      (112, 112, 3)
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
    """The frames, none of them damaged.

    A decoder conceals what it cannot decode, and says so in a flag of the frame at most. With
    "explode" it raises an error where it notices, which decoders with several threads may lose.
    Formats without redundancy (FFV1, HEVC) may notice nothing.

    Raises:
      Unreadable: a part of the video cannot be decoded.
    """
    import av

    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "explode"}
    count = 0
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise Unreadable(f"damaged: frame {count} of {stream.frames}")
                yield frame
                count += 1
            if packet.is_corrupt:
                raise Unreadable(f"damaged: cut off at frame {count} of {stream.frames} frames")
    except av.FFmpegError as error:
        reason = error.strerror or error
        raise Unreadable(f"damaged: {reason} at frame {count} of {stream.frames} frames") from error


def _image(encoded: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(encoded)) as image:
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise Unreadable(f"damaged frame: {_first_line(error)}") from error


def _least(promised: int) -> float:
    """The fewest frames (or 1/rate seconds) that a video with this many in its header may have."""
    return (1 - _SPARE_SHARE) * promised - _SPARE_FRAMES


def _reaches_the_end(container, stream, last) -> bool:
    """Whether the last frame is where the file's header puts the end, however many there are.

    Frames that were dropped when the video was recorded (AVI), or that an edit list hides (MP4),
    are in the header's count. A truncated file ends early. The duration alone does not tell this:
    FFmpeg corrects the duration of a truncated AVI.
    """
    rate = stream.average_rate or stream.guessed_rate
    if last.time is None or not rate:
        return False
    end = float(last.time * rate) + 1  # in frames
    if end >= _least(stream.frames):
        return True
    if "mp4" not in container.format.name or stream.duration is None:
        return False
    shown = float(stream.duration * stream.time_base * rate)
    begin = float((stream.start_time or 0) * stream.time_base * rate)
    return end - begin >= _least(shown)


def _upright(frame) -> np.ndarray:
    """The pixels of a frame as they are to be shown, RGB uint8 (H, W, 3)."""
    pixels = frame.to_ndarray(format="rgb24")
    transposed, upside_down, mirrored = _orientation(frame)
    pixels = pixels.transpose(1, 0, 2) if transposed else pixels
    pixels = pixels[::-1] if upside_down else pixels
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def _orientation(frame) -> tuple[bool, bool, bool]:
    """Whether rows and columns are exchanged, and then which of them are reversed.

    The display matrix (a, b, u, c, d, v, ...) of a file moves the pixel (x, y) to
    (a x + c y, b x + d y). Its scale is ignored.
    """
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(data, np.int32, 5).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, b < 0, c < 0
    return False, d < 0, a < 0


def _stamp(path: str) -> list[int]:
    try:
        status = os.stat(path)
        return [status.st_size, status.st_mtime_ns]
    except OSError:
        return []


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [repr(error)])[0][:200]
