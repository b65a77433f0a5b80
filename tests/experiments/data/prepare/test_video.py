import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from experiments.data.prepare import video


def write(path, frames, height=240, width=320, *, dropped=(), first=0, codec="mpeg4", **options):
    """A file from RGB frames that are made one by one.

    Args:
      path: the kind of file follows from its name.
      frames: RGB uint8 (height, width, 3).
      dropped: numbers of frames that are not written, as a camera drops them.
      first: time of the first frame, in frames.
      codec: FFmpeg's name of it.
      **options: of the program that writes the file.
    """
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.bit_rate = 4_000_000
        stream.codec_context.time_base = Fraction(1, 25)
        for number, pixels in enumerate(frames):
            if number not in dropped:
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number + first, Fraction(1, 25)
                container.mux(stream.encode(frame))
        container.mux(stream.encode())


def header_of(path):
    """The number of frames that the header counts."""
    with av.open(str(path)) as container:
        return container.streams.video[0].frames


def numbered(count, height=240, width=320):
    """Frames whose number is written in eight bars of the centre, one bit each."""
    for number in range(count):
        frame = np.full((height, width, 3), 128, np.uint8)
        for bit in range(8):
            left = width // 2 - 96 + 24 * bit
            frame[:, left : left + 24] = 255 * (number >> bit & 1)
        yield frame


def number_of(small):
    """The number in a frame of 112x112: the bars are 12 wide and begin at 8."""
    return sum(
        int(small[:, 8 + 12 * bit + 3 : 8 + 12 * bit + 9].mean() > 127) << bit for bit in range(8)
    )


@pytest.mark.parametrize(
    "frames, starts",
    [(16, [0, 0, 0, 0]), (19, [0, 1, 2, 3]), (64, [0, 16, 32, 48]), (100, [0, 28, 56, 84])],
)
def test_clips_are_equally_spaced_from_the_first_frame_to_the_last(frames, starts):
    assert video.starts(frames) == starts


def test_a_video_shorter_than_a_clip_is_unreadable():
    with pytest.raises(video.Unreadable, match="too short: 15 of 16 frames"):
        video.starts(15)


@pytest.mark.parametrize("count", [16, 40, 100])
def test_the_clips_of_a_file_show_exactly_the_frames_they_should(count, tmp_path):
    path = tmp_path / "numbered.avi"
    write(path, numbered(count))
    file = video.VideoFile(str(path))
    assert file.probe() == (count, 240, 320)
    clips = video.clips(file, count)
    assert clips.shape == (4, 16, 112, 112, 3) and clips.dtype == np.uint8
    seen = [[number_of(frame) for frame in clip] for clip in clips]
    last = count - 16
    expected = [round(last * part / 3) for part in range(4)]
    assert seen == [list(range(start, start + 16)) for start in expected]


def test_the_crop_is_the_centre_and_pixels_are_averaged_two_by_two():
    frame = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    small = video.shrink(frame)
    assert small.shape == (112, 112, 3)
    for row, column in ((0, 0), (111, 111), (5, 100)):
        top, left = 8 + 2 * row, 48 + 2 * column
        block = frame[top : top + 2, left : left + 2].astype(float).mean((0, 1))
        assert np.all(np.abs(small[row, column] - block) <= 0.5)
    large = np.full((1080, 1920, 3), 9, np.uint8)
    large[428:652, 848:1072] = 200
    np.testing.assert_array_equal(video.shrink(large), 200)


@pytest.mark.parametrize("height, width", [(120, 160), (224, 100), (223, 500), (64, 48)])
def test_small_frames_are_scaled_up_in_proportion(height, width):
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2] = 200  # the upper half is bright, and is still afterwards
    small = video.shrink(frame)
    assert small.shape == (112, 112, 3)
    assert np.all(small[:54] > 150) and np.all(small[58:] < 50)


def test_a_small_file_is_scaled_up(tmp_path):
    write(tmp_path / "small.avi", numbered(16, 120, 208), 120, 208)
    file = video.VideoFile(str(tmp_path / "small.avi"))
    assert file.probe() == (16, 120, 208)
    assert video.clips(file, 16).shape == (4, 16, 112, 112, 3)


def test_files_that_cannot_be_used_say_why(tmp_path):
    def reason(content):
        path = tmp_path / "video.avi"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(video.Unreadable) as caught:
            video.VideoFile(str(path)).probe()
        return str(caught.value)

    assert reason(None) == "missing"
    assert reason(b"") == "empty file"
    assert reason(b"this is no video" * 100).startswith("not a video")
    write(tmp_path / "whole.avi", numbered(60))
    whole = (tmp_path / "whole.avi").read_bytes()
    assert reason(whole[:100]).startswith("not a video")
    for keep in (0.3, 0.6, 0.8):
        assert reason(whole[: int(keep * len(whole))]).startswith("damaged: ")


def test_dropped_frames_are_no_damage(tmp_path):
    """An AVI counts frames that were dropped, and shows the one before for longer."""
    path = tmp_path / "dropped.avi"
    write(path, numbered(60), dropped=range(10, 40))
    assert header_of(path) == 60
    assert video.VideoFile(str(path)).probe() == (30, 240, 320)
    # The same file cut off is damaged, although its frames end where FFmpeg corrects its length to.
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    with pytest.raises(video.Unreadable, match="^damaged: "):
        video.VideoFile(str(path)).probe()


def test_frames_that_an_edit_list_hides_are_no_damage(tmp_path):
    path = tmp_path / "edited.mp4"
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    write(path, numbered(60), first=-30, **options)
    assert header_of(path) == 60
    assert video.VideoFile(str(path)).probe() == (30, 240, 320)
    first = next(iter(video.VideoFile(str(path)).pick([0])))
    assert number_of(video.shrink(first)) == 30


def test_an_mp4_file_that_is_cut_off_is_damage(tmp_path):
    path = tmp_path / "whole.mp4"
    write(path, numbered(60), movflags="faststart")  # the index is in front
    assert video.VideoFile(str(path)).probe() == (60, 240, 320)
    path.write_bytes(path.read_bytes()[: int(0.7 * path.stat().st_size)])
    with pytest.raises(video.Unreadable, match="^damaged: .* of 60 frames"):
        video.VideoFile(str(path)).probe()


def test_a_header_that_counts_two_frames_too_many_is_no_damage(tmp_path):
    path = tmp_path / "short.avi"
    write(path, numbered(16))
    content = path.read_bytes()
    count = struct.pack("<I", 16)
    at = content.index(b"strh") + 8 + 32  # dwLength of the stream's header
    total = content.index(b"avih") + 8 + 16  # dwTotalFrames
    assert content[at : at + 4] == content[total : total + 4] == count
    for promised, intact in ((18, True), (40, False)):
        changed = bytearray(content)
        for place in (at, total):
            changed[place : place + 4] = struct.pack("<I", promised)
        path.write_bytes(changed)
        assert header_of(path) == promised
        if intact:
            assert video.VideoFile(str(path)).probe() == (16, 240, 320)
        else:
            with pytest.raises(video.Unreadable, match="damaged: 16 of 40 frames"):
                video.VideoFile(str(path)).probe()


# ISO 14496-12, 6.2.2: the matrix (a, b, c, d) moves (x, y) to (a x + c y, b x + d y), y downwards.
# So with (0, 1, -1, 0) a row that goes right is shown going down: a quarter turn clockwise.
ORIENTATIONS = {
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda pixels: np.rot90(pixels, 2),
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda pixels: pixels.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda pixels: np.rot90(pixels.transpose(1, 0, 2), 2),
    (2, 0, 0, 2): lambda pixels: pixels,  # twice as large is no other orientation
}


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_frames_are_turned_and_mirrored_as_the_file_says(matrix, tmp_path):
    path = tmp_path / "turned.mp4"
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[:120, :80], pixels[:40, 80:] = 200, 100  # no orientation looks like another one
    write(path, [pixels] * 16)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40
    unit = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    assert content[at : at + 36] == unit
    a, b, c, d = (number << 16 for number in matrix)
    content[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    file = video.VideoFile(str(path))
    expected = ORIENTATIONS[matrix](pixels)
    assert file.probe() == (16, *expected.shape[:2])
    for frame in file.pick([0, 15]):
        assert frame.shape == expected.shape and frame.flags.c_contiguous
        np.testing.assert_allclose(frame.astype(int), expected, atol=60)
        assert np.mean(np.abs(frame.astype(int) - expected)) < 3


def textured(count):
    """A pattern that moves, so that every frame has much to decode."""
    tiles = np.random.default_rng(0).integers(0, 256, (16, 22, 3), dtype=np.uint8)
    large = np.kron(tiles, np.ones((16, 16, 1), np.uint8))
    return (large[:240, number : number + 320] for number in range(count))


CODECS = {"mpeg4": "avi", "msmpeg4v2": "avi", "mpeg2video": "avi", "mjpeg": "avi", "libx264": "mp4"}


@pytest.mark.parametrize("codec", CODECS)
def test_flipped_bytes_are_damage(codec, tmp_path):
    """Before, all frames came, some of them 200 gray levels off."""
    path = tmp_path / f"whole.{CODECS[codec]}"
    write(path, textured(40), codec=codec)
    file = video.VideoFile(str(path))
    assert file.probe() == (40, 240, 320)
    whole = path.read_bytes()
    for seed in range(3):
        content = bytearray(whole)
        draw = np.random.default_rng(seed)
        for place in draw.integers(len(whole) // 6, len(whole) * 3 // 4, 10):
            content[place] ^= int(draw.integers(1, 256))
        path.write_bytes(content)
        with pytest.raises(video.Unreadable, match="^damaged: ") as told:
            file.probe()
        assert "\n" not in str(told.value)
        with pytest.raises(video.Unreadable):  # also where it was damaged after it was counted
            list(file.pick(range(40)))


@pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
def test_a_last_frame_that_is_cut_off_is_damage(codec, tmp_path):
    """Few frames are missing, fewer than headers count too many, and the last one is cut."""
    path = tmp_path / "whole.avi"
    write(path, textured(40), codec=codec)
    for share in (0.93, 0.95, 0.9):
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
        with pytest.raises(video.Unreadable, match="^damaged: "):
            video.VideoFile(str(path)).probe()


def test_a_file_that_lost_frames_since_it_was_counted_is_noticed(tmp_path):
    write(tmp_path / "numbered.avi", numbered(20))
    with pytest.raises(video.Unreadable, match="changed since"):
        video.clips(video.VideoFile(str(tmp_path / "numbered.avi")), 40)
