"""Whole, cut and odd files: what a container says of its end, of edits, of durations, and bounds on what is read."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from maskedmodel_video.clip import Clip
from maskedmodel_video.frames import read_frames
from maskedmodel_video.reader import read_clip
from maskedmodel_video.structure import missing_end
from PIL import Image

from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_video.conftest import grey, levels, settings, write_video

# Containers that say where they end.
ENDED = {
    "a.mp4": "libx264",
    "a.mov": "mpeg4",
    "a.mkv": "ffv1",
    "a.webm": "libvpx-vp9",
    "a.avi": "mpeg4",
    "a.wmv": "wmv2",
    "a.flv": "flv",
    "a.ts": "mpeg2video",
    "a.gif": "gif",
    "a.ogv": "libvpx",
}


def of(content: bytes, clip: int = 0, clips: int = 1, **values: Any) -> Clip:
    return read_clip(io.BytesIO(content), "it", settings(**values), clip, clips)


def video(tmp_path: Path, name: str, codec: str, count: int = 24, **options: Any) -> bytes:
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    return write_video(tmp_path / name, count, codec=codec, **options).read_bytes()


@pytest.mark.parametrize("name", ENDED)
def test_whole_files_miss_nothing_and_cut_ones_are_refused(tmp_path: Path, name: str) -> None:
    content = video(tmp_path, name, ENDED[name])
    assert missing_end(io.BytesIO(content)) == ""
    assert of(content).notes == ()
    for share in (0.9, 0.5):
        with pytest.raises(DataError, match=r"cut off|isn't a video|can't be decoded"):
            of(content[: int(share * len(content))])


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.webm", "a.flv", "a.ts"])
def test_what_is_there_of_a_cut_file_is_read_where_settings_say_so(tmp_path: Path, name: str) -> None:
    content = video(tmp_path, name, ENDED[name])
    clip = of(content[: int(0.75 * len(content))], 0, 2, incomplete="read")
    assert clip.notes[0] == "cut off: read as far as it goes"
    assert levels(clip.signal) == [0, 1, 2, 3]


def test_an_mp4_with_its_table_first_is_refused_where_frames_are_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 24, 32, "yuv420p"
        for number in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(grey(number), format="rgb24")))
        out.mux(stream.encode())
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with pytest.raises(DataError, match=r"(?s)cut off.*of the box 'mdat' are there"):
        of(content[:-200])
    assert levels(of(content[:-200], 0, 2, incomplete="read").signal) == [0, 1, 2, 3]


def test_a_file_of_unknown_length_is_whole(tmp_path: Path) -> None:
    """As a stream is saved: Matroska whose segment says no size."""
    content = bytearray(video(tmp_path, "a.mkv", "ffv1"))
    at = content.index(b"\x18\x53\x80\x67") + 4
    content[at : at + 8] = b"\x01" + b"\xff" * 7
    assert levels(of(bytes(content)).signal) == [10, 11, 12, 13]


class TestTimes:
    def test_an_edit_list_is_obeyed(self, tmp_path: Path) -> None:
        """The frames that an editor cut away are in the file still, and aren't shown."""
        content = bytearray(video(tmp_path, "a.mp4", "mpeg4", 20, gop_size=20))
        at = content.index(b"elst")
        assert struct.unpack_from(">II", content, at + 4) == (0, 1)
        duration, start = struct.unpack_from(">Ii", content, at + 12)
        scale = struct.unpack_from(">I", content, content.index(b"mdhd") + 16)[0]
        struct.pack_into(">Ii", content, at + 12, duration * 3 // 5, start + scale * 6 // 10)  # 0.6 to 1.8 s
        with av.open(io.BytesIO(bytes(content))) as container:
            expected = [round(frame.to_ndarray(format="rgb24").mean() / 10) for frame in container.decode(video=0)]
        assert expected[0] == 6
        assert len(expected) in (12, 13, 14)
        assert levels(of(bytes(content), 0, 2, frames=len(expected)).signal) == expected

    def test_a_wrong_duration_in_the_header_changes_nothing(self, tmp_path: Path) -> None:
        content = video(tmp_path, "a.mp4", "mpeg4", 20)
        for box, skip in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
            for value in (0, 1, 1 << 30):
                at = content.index(box) + skip
                wrong = content[:at] + struct.pack(">I", value) + content[at + 4 :]
                assert levels(of(wrong).signal) == [8, 9, 10, 11]
        content = video(tmp_path, "a.mkv", "ffv1", 20)
        at = content.index(b"\x44\x89\x88") + 3  # Duration, 8 bytes of floating point
        for seconds in (0.0, 5.0, 1e9):
            wrong = content[:at] + struct.pack(">d", seconds) + content[at + 8 :]
            assert levels(of(wrong).signal) == [8, 9, 10, 11]


class TestNotes:
    def test_what_is_converted_or_left_out_is_noted_once(self, tmp_path: Path) -> None:
        content = video(tmp_path, "a.mp4", "mpeg4", 3, sample_aspect_ratio=2)
        assert of(content).notes == (
            "pixels that aren't square made square",
            "shorter than a clip: the last frame repeated",
        )
        path = write_video(tmp_path / "two.mkv", 6, more=[[grey(20)] * 6])
        assert of(path.read_bytes()).notes == ("further video streams left out",)

    def test_frames_without_times_are_noted(self, tmp_path: Path) -> None:
        whole, raw = write_video(tmp_path / "a.mp4", 20, codec="libx264"), tmp_path / "a.h264"
        with av.open(str(whole)) as container, av.open(str(raw), "w", format="h264") as out:
            copy = out.add_stream_from_template(container.streams.video[0])
            for packet in container.demux(container.streams.video[0]):
                if packet.size:
                    packet.stream = copy
                    out.mux(packet)
        assert of(raw.read_bytes()).notes == ("no times in the file: frames counted",)


class TestBounds:
    def test_large_frames_are_refused_before_they_are_decoded(self, tmp_path: Path) -> None:
        content = video(tmp_path, "a.mp4", "mpeg4")
        with pytest.raises(DataError, match=r"(?s)more pixels.*at most 700.*32 x 24.*data\.most_pixels"):
            of(content, most_pixels=700)
        assert of(content, most_pixels=768).signal.shape == (3, 4, 16, 16)

    def test_frames_so_long_that_they_would_be_huge_once_resized_are_refused(self, tmp_path: Path) -> None:
        content = write_video(tmp_path / "a.mkv", [grey(1, 2, 4000)] * 3).read_bytes()
        with pytest.raises(DataError, match=r"(?s)more pixels.*data\.most_pixels"):
            of(content, size=64, most_pixels=1 << 20)

    def test_too_many_frames_are_refused(self, tmp_path: Path) -> None:
        content = video(tmp_path, "a.mkv", "ffv1")
        with pytest.raises(DataError, match=r"(?s)too many frames.*at most 20.*data\.most_frames"):
            of(content, most_frames=20)
        assert of(content, most_frames=24).notes == ()

    def test_large_images_of_a_folder_are_refused(self, tmp_path: Path) -> None:
        Image.fromarray(grey(3)).save(tmp_path / "0.png")
        with pytest.raises(DataError, match=r"(?s)more pixels.*data\.most_pixels"):
            read_frames(lambda _: ((tmp_path / "0.png").open("rb"), "0.png"), 1, settings(most_pixels=700))


class TestImages:
    @staticmethod
    def notes(tmp_path: Path, image: Image.Image, name: str = "0.png", **values: Any) -> tuple[str, ...]:
        image.save(tmp_path / name, **values)
        return read_frames(lambda _: ((tmp_path / name).open("rb"), name), 1, settings(frames=1)).notes

    def test_what_is_converted_or_left_out_is_noted(self, tmp_path: Path) -> None:
        plain = Image.fromarray(grey(3))
        assert self.notes(tmp_path, plain) == ()
        clear = plain.convert("RGBA")
        assert self.notes(tmp_path, clear) == ()
        clear.putpixel((0, 0), (0, 0, 0, 0))
        assert self.notes(tmp_path, clear) == ("transparency left out",)
        assert self.notes(tmp_path, plain.convert("CMYK"), "0.jpg") == ("CMYK made RGB",)
        exif = plain.getexif()
        exif[274] = 2
        assert self.notes(tmp_path, plain, "1.jpg", exif=exif) == ("turned or mirrored as the file says",)
        more = [Image.fromarray(grey(number)) for number in (4, 5)]
        assert self.notes(tmp_path, plain, "0.webp", save_all=True, append_images=more) == (
            "further pictures of an image file left out",
        )

    def test_sixteen_bits_are_refused_by_their_tag(self, tmp_path: Path) -> None:
        import tifffile

        for number, kind in enumerate((np.uint16, np.int8, np.uint8)):
            name = f"{number}.tif"
            tifffile.imwrite(tmp_path / name, np.full((8, 8, 3), 99, kind), planarconfig="contig", photometric="rgb")
            if kind is np.uint8:
                assert self.notes(tmp_path, Image.open(tmp_path / name), "again.tif") == ()
                continue
            with pytest.raises(DataError, match=r"isn't an image|more than 8 bits"):
                read_frames(lambda _, name=name: ((tmp_path / name).open("rb"), name), 1, settings(frames=1))
