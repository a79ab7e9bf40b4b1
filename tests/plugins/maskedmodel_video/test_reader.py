"""What real video files hold: any container, variable rates, rotation, several streams, damage."""

from __future__ import annotations

import io
import math
import struct
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from maskedmodel_video.clip import Clip
from maskedmodel_video.frame_choice import choose, fill
from maskedmodel_video.reader import read_clip
from torch import Tensor

from maskedmodel.errors import DataError, DependencyError
from tests.plugins.maskedmodel_video.conftest import grey, levels, settings, write_video


def read(path: Path, clip: int = 0, clips: int = 1, **values: Any) -> Tensor:
    return noted(path, clip, clips, **values).signal


def noted(path: Path, clip: int = 0, clips: int = 1, **values: Any) -> Clip:
    with path.open("rb") as stream:
        return read_clip(stream, str(path), settings(**values), clip, clips)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mkv", "ffv1"),
        ("a.mp4", "libx264"),
        ("a.mov", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "libx264"),
        ("a.ts", "libx264"),
        ("a.flv", "flv1"),
    ],
)
def test_the_middle_of_any_container(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, 20, codec=codec)
    clip = read(path)
    assert clip.shape == (3, 4, 16, 16)
    assert clip.dtype == torch.uint8
    assert levels(clip) == [8, 9, 10, 11]
    assert levels(read(path, stride=3)) == [5, 8, 11, 14]
    assert levels(read(path, frames=18)) == list(range(1, 19))


def test_clips_are_spread_from_the_start_to_the_end(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 20, codec="libx264")
    starts = [levels(read(path, clip, 3))[0] for clip in range(3)]
    assert starts == [0, 8, 16]
    assert levels(read(path, 2, 3)) == [16, 17, 18, 19]


def test_a_short_video_repeats_its_last_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", 3)
    assert levels(read(path, frames=6)) == [0, 1, 2, 2, 2, 2]
    assert levels(read(path, stride=2)) == [0, 2, 2, 2]
    assert levels(read(write_video(tmp_path / "b.mkv", 1))) == [0, 0, 0, 0]


class TestVariableRate:
    # Frame 0 is shown for a second, then ten a second follow.
    TIMES = (0, *range(1000, 2000, 100))

    @pytest.mark.parametrize("codec", ["ffv1", "libx264"])
    def test_frames_are_chosen_by_when_they_are_shown(self, tmp_path: Path, codec: str) -> None:
        path = write_video(tmp_path / "a.mkv", 11, codec=codec, times=self.TIMES)
        assert levels(read(path, frames=20, rate=10)) == [0] * 10 + list(range(1, 11))
        assert levels(read(path, frames=4, rate=10, stride=5)) == [0, 0, 3, 8]

    def test_without_a_rate_time_is_counted_at_the_mean_one(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mkv", 11, times=self.TIMES)
        # 10 steps in 1.9 s: what is on show at 0, 190, 380, ... ms.
        assert levels(read(path, frames=11)) == [0, 0, 0, 0, 0, 0, 2, 4, 6, 8, 10]

    def test_videos_of_different_rates_move_alike_at_one_rate(self, tmp_path: Path) -> None:
        slow = write_video(tmp_path / "slow.mkv", 10, rate=5)
        fast = write_video(tmp_path / "fast.mkv", 20, rate=10)
        assert levels(read(slow, 0, 2, rate=5, frames=5)) == [0, 1, 2, 3, 4]
        assert levels(read(fast, 0, 2, rate=5, frames=5)) == [0, 2, 4, 6, 8]
        assert levels(read(slow, 0, 2, rate=10, frames=5)) == [0, 0, 1, 1, 2]

    def test_rounded_times_skip_no_frame(self) -> None:
        times = [round(1000 * number / 29.97) / 1000 for number in range(300)]  # as mkv stores them
        start = choose(times, settings(frames=64, stride=4))[0]
        assert choose(times, settings(frames=64, stride=4)) == list(range(start, start + 256, 4))
        assert choose(times, settings(frames=64, stride=4), 1, 2)[-1] == 299


def patched_matrix(path: Path, degrees: int) -> Path:
    """The mp4 with a display matrix in its track header that turns it counter-clockwise."""
    content = bytearray(path.read_bytes())
    cos, sin = (round(f(math.radians(degrees))) for f in (math.cos, math.sin))
    at = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    content[at : at + 36] = struct.pack(">9i", cos << 16, -sin << 16, 0, sin << 16, cos << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_videos_stand_upright(tmp_path: Path, degrees: int) -> None:
    picture = np.zeros((32, 64, 3), dtype=np.uint8)
    picture[:8, :16] = 255  # the upper left corner, as stored
    path = patched_matrix(write_video(tmp_path / "a.mp4", [picture] * 4, codec="libx264"), degrees)
    size = (32, 64) if degrees % 180 == 0 else (64, 32)
    clip = read(path, size=size)[0, 0].numpy().astype(int)
    expected = np.rot90(picture[..., 0], degrees // 90)
    assert clip.shape == expected.shape
    assert np.abs(clip - expected).mean() < 4
    square = read(path, size=16)[0, 0]
    assert square.shape == (16, 16)


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path) -> None:
    picture = np.zeros((32, 32, 3), dtype=np.uint8)
    picture[8:24, 12:20] = 255  # 16 pixels tall, 8 wide: a square once each is twice as wide
    path = write_video(tmp_path / "a.mp4", [picture] * 3, codec="mpeg4", sample_aspect_ratio=2)
    clip = read(path, size=(32, 64), mode="grey")[0, 0].float() > 127
    assert abs(int(clip.sum(0).max()) - 16) <= 1
    assert abs(int(clip.sum(1).max()) - 16) <= 1


class TestStreams:
    def test_the_first_video_stream_is_taken(self, tmp_path: Path) -> None:
        other = [grey(20)] * 6
        path = write_video(tmp_path / "a.mkv", 6, more=[other])
        with av.open(str(path)) as container:
            assert len(container.streams.video) == 2
        assert levels(read(path)) == [1, 2, 3, 4]

    def test_sound_and_a_cover_picture_are_passed_over(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            cover = container.add_stream("png", rate=1)
            cover.width = cover.height = 16
            cover.pix_fmt = "rgb24"
            cover.disposition = av.stream.Disposition.attached_pic
            sound = container.add_stream("aac", rate=16000, layout="mono")
            video = container.add_stream("libx264", rate=10)
            video.width, video.height, video.pix_fmt = 32, 24, "yuv420p"
            container.mux(cover.encode(av.VideoFrame.from_ndarray(grey(20, 16, 16), format="rgb24")))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            for number in range(6):
                container.mux(video.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
            for stream in (sound, video):
                container.mux(stream.encode())
        with av.open(str(path)) as container:
            assert len(container.streams.video) == 2
        assert levels(read(path)) == [1, 2, 3, 4]

    def test_sound_alone_is_no_video(self, tmp_path: Path) -> None:
        path = tmp_path / "a.mp4"
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=16000, layout="mono")
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 0
            container.mux(sound.encode(silence))
            container.mux(sound.encode())
        with pytest.raises(DataError, match=r"(?s)holds no video.*got: audio"):
            read(path)


def noisy(number: int) -> np.ndarray[Any, Any]:
    """Pictures that don't compress, so that cutting a file in half cuts the frames in half."""
    return np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)


class TestDamage:
    @staticmethod
    def cut(tmp_path: Path) -> Path:
        pictures = [grey(number) for number in range(8)] + [noisy(number) for number in range(24)]
        path = write_video(tmp_path / "a.mkv", pictures)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        return path

    def test_a_cut_file_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"(?s)cut off.*of its segment are there.*data\.incomplete=read"):
            read(self.cut(tmp_path), 0, 2, frames=8)

    def test_of_a_cut_file_what_is_there_is_used_where_settings_say_so(self, tmp_path: Path) -> None:
        path = self.cut(tmp_path)
        clip = noted(path, 0, 2, frames=8, incomplete="read")
        assert levels(clip.signal) == list(range(8))
        assert "cut off: read as far as it goes" in clip.notes
        last = read(path, 1, 2, frames=4, incomplete="read")  # its place moves to what can be decoded
        assert last.float().std((0, 2, 3)).min() > 30

    def test_frames_that_cannot_be_decoded_are_refused_or_passed_over(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mov", [noisy(number) for number in range(20)], codec="png")
        whole = read(path, frames=20, size=(24, 32))
        content = bytearray(path.read_bytes())
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
            places = [content.index(bytes(packet)) for packet in packets]
            for number in (11, 12, 13):
                content[places[number] : places[number] + packets[number].size] = bytes(packets[number].size)
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"(?s)Frames of the video can't be decoded.*data\.incomplete=read"):
            read(path, frames=20, size=(24, 32))
        clip = noted(path, frames=20, rate=10, size=(24, 32), incomplete="read")
        assert "frames that can't be decoded passed over" in clip.notes
        whole[:, 11:14] = whole[:, 10:11]  # what was on show before
        assert torch.equal(clip.signal, whole)

    @pytest.mark.parametrize(
        "content",
        [b"", b"not a video at all", bytes(5000), bytes(range(256)) * 40, b"\x1aE\xdf\xa3" + bytes(100)],
        ids=["empty", "text", "zeros", "bytes", "only a head"],
    )
    def test_what_is_no_video_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.mp4"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"(?s)isn't a video that can be read|holds no video") as caught:
            read(path)
        assert str(path) in str(caught.value)

    def test_an_mp4_cut_before_its_table_of_frames_is_refused(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mp4", 20, codec="mpeg4")
        content = path.read_bytes()
        path.write_bytes(content[: content.index(b"moov") - 4])
        with pytest.raises(DataError, match="isn't a video"):
            read(path, incomplete="read")
        with pytest.raises(DataError, match=r"cut off|isn't a video"):
            read(path)

    def test_a_video_of_no_frames_is_refused(self, tmp_path: Path) -> None:
        path = write_video(tmp_path / "a.mkv", 8)
        content = path.read_bytes()
        with av.open(str(path)) as container:
            first = next(container.demux(container.streams.video[0]))
            path.write_bytes(content[: content.index(bytes(first)) - 10])
        with pytest.raises(DataError, match="cut off"):
            read(path)
        with pytest.raises(DataError, match="Not one frame"):
            read(path, incomplete="read")

    @pytest.mark.parametrize("seed", range(8))
    @pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libvpx-vp9"), ("a.avi", "mpeg4")])
    def test_any_damage_gives_a_clip_or_a_clear_error(self, tmp_path: Path, name: str, codec: str, seed: int) -> None:
        path = write_video(tmp_path / name, [noisy(number) for number in range(12)], codec=codec)
        content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
        for place in random.integers(0, len(content), 40):
            content[place] = random.integers(256)
        path.write_bytes(content[: len(content) if seed % 2 else int(random.integers(len(content)))])
        said: object = None
        for incomplete in ("refuse", "read"):
            try:
                assert read(path, incomplete=incomplete).shape == (3, 4, 16, 16)
            except DataError as error:
                said = error.where
        assert said in (None, str(path))


def test_without_times_frames_are_counted(tmp_path: Path) -> None:
    """A raw stream of H.264, which holds pictures alone."""
    whole, raw = write_video(tmp_path / "a.mp4", 20, codec="libx264"), tmp_path / "a.h264"
    with av.open(str(whole)) as container, av.open(str(raw), "w", format="h264") as out:
        source = container.streams.video[0]
        copy = out.add_stream_from_template(source)
        for packet in container.demux(source):
            if packet.size:
                packet.stream = copy
                out.mux(packet)
    assert levels(read(raw)) == [8, 9, 10, 11]
    assert levels(read(raw, stride=3, rate=1)) == [5, 8, 11, 14]


def test_far_clips_are_found_from_a_keyframe_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maskedmodel_video import reader

    path = write_video(tmp_path / "a.mp4", [grey(number % 25) for number in range(300)], codec="libx264", gop_size=10)
    decoded = []
    plain = reader._Reading._frames

    def counting(self: Any, *given: Any) -> Any:
        for frame in plain(self, *given):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(reader._Reading, "_frames", counting)
    assert levels(read(path, 1, 2)) == [21, 22, 23, 24]
    assert len(decoded) < 30


def test_modes_and_sizes(tmp_path: Path) -> None:
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    picture[:, 20:40] = (255, 0, 0)
    path = write_video(tmp_path / "a.mkv", [picture] * 3)
    colour, plain = read(path, size=(20, 20)), read(path, size=(20, 20), mode="grey")
    assert colour.shape == (3, 4, 20, 20)
    assert plain.shape == (1, 4, 20, 20)
    # The centre is kept: the red third alone.
    assert colour[0].float().mean() > 225
    assert colour[1:].float().mean() < 25
    assert 50 < plain.float().mean() < 110
    assert read(path, size=(40, 10)).shape == (3, 4, 40, 10)


def test_the_last_frame_fills_up() -> None:
    assert fill([1, 2], 4) == [1, 2, 2, 2]
    assert fill([1, 2], 2) == [1, 2]


def test_without_pyav_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(DependencyError, match="uv sync --extra video"):
        read_clip(io.BytesIO(b""), "a.mp4", settings())
