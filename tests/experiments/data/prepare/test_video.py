import av
import numpy as np
import pytest

from experiments.data.prepare import video


def write(path, frames, height=240, width=320):
    """An AVI file (mpeg4) from RGB frames that are made one by one."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.bit_rate = 4_000_000
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


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


def test_a_file_that_lost_frames_since_it_was_counted_is_noticed(tmp_path):
    write(tmp_path / "numbered.avi", numbered(20))
    with pytest.raises(video.Unreadable, match="changed since"):
        video.clips(video.VideoFile(str(tmp_path / "numbered.avi")), 40)
