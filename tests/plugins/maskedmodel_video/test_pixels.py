"""What stands in a clip's pixels: every orientation, range, matrix, depth and alpha, held against values by hand."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from maskedmodel_video.clip import Clip
from maskedmodel_video.reader import read_clip

from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_video.conftest import settings

# Eight squares of 16 pixels: as large as every kind of chroma sampling and every codec's block.
COLOURS = [
    (0, 0, 0),
    (255, 255, 255),
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (128, 128, 128),
    (200, 100, 50),
    (30, 60, 90),
]
PICTURE = np.array(COLOURS, np.uint8).reshape(2, 4, 3).repeat(16, 0).repeat(16, 1)
LUMA = PICTURE @ np.array([0.299, 0.587, 0.114])

# Display matrices a, b, c, d and what they do to a picture.
ORIENTATIONS = {
    (1, 0, 0, 1): lambda x: x,
    (-1, 0, 0, 1): lambda x: x[:, ::-1],
    (1, 0, 0, -1): lambda x: x[::-1],
    (-1, 0, 0, -1): lambda x: np.rot90(x, 2),
    (0, 1, -1, 0): lambda x: np.rot90(x, -1),
    (0, -1, 1, 0): lambda x: np.rot90(x, 1),
    (0, 1, 1, 0): lambda x: x.swapaxes(0, 1),
    (0, -1, -1, 0): lambda x: np.rot90(x.swapaxes(0, 1), 2),
}


def written(
    codec: str, pixel_format: str, container: str = "mov", frame: Any = None, picture: Any = PICTURE, **values: Any
) -> bytes:
    """A video of three times this picture, or this frame; `values` go to the encoder. Raises av.error.FFmpegError."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream: Any = out.add_stream(codec, rate=10, options=values.pop("options", {}))
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixel_format
        if codec == "libx264" and pixel_format.startswith("gray"):
            values = {"color_range": 2, **values}  # FFmpeg's greys are full range, which H.264 has to be told
        for name, value in values.items():
            setattr(stream.codec_context, name, value)
        for number in range(3):
            shown = frame
            if frame is None:
                full = 2 if pixel_format.startswith("yuvj") else None
                shown = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
                    format=pixel_format, dst_color_range=full
                )
            shown.pts, shown.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(shown))
        out.mux(stream.encode())
    return file.getvalue()


def shown(
    content: bytes, size: tuple[int, int] = (32, 64), **values: Any
) -> tuple[np.ndarray[Any, Any], tuple[str, ...]]:
    """The first frame (H, W, C) of the clip that is read, and its notes."""
    clip: Clip = read_clip(io.BytesIO(content), "it", settings(size=size, frames=3, **values))
    return clip.signal[:, 0].permute(1, 2, 0).numpy().astype(int), clip.notes


def turned(content: bytes, matrix: tuple[float, float, float, float]) -> bytes:
    """The mp4 or mov with this display matrix in its track header."""
    a, b, c, d = (round(value * 65536) for value in matrix)
    at = content.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    return content[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + content[at + 36 :]


def centres(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values in the middle of each square."""
    return picture[8::16, 8::16].astype(int)


def squares(picture: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The mean of each square."""
    height, width, channels = picture.shape
    return picture.reshape(height // 16, 16, width // 16, 16, channels).mean((1, 3))


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_every_orientation_stands_upright(matrix: tuple[int, int, int, int]) -> None:
    expected = ORIENTATIONS[matrix](PICTURE)
    got, notes = shown(turned(written("qtrle", "rgb24"), matrix), expected.shape[:2])
    assert np.array_equal(got, expected)
    assert notes == (() if matrix == (1, 0, 0, 1) else ("turned or mirrored as the file says",))


@pytest.mark.parametrize("matrix", [(0.7071, 0.7071, -0.7071, 0.7071), (1, 0.3, 0, 1), (0, 0, 0, 0)])
def test_other_angles_are_refused(matrix: tuple[float, float, float, float]) -> None:
    content = turned(written("qtrle", "rgb24"), matrix)
    if matrix == (0, 0, 0, 0):
        assert np.array_equal(shown(content)[0], PICTURE)  # FFmpeg takes none of it for no matrix
        return
    with pytest.raises(DataError, match=r"(?s)by an angle that is no quarter.*0, 90, 180 or 270"):
        shown(content)


def planes(red_weight: float, blue_weight: float, full: bool) -> np.ndarray[Any, Any]:
    """The picture as Y, Cb and Cr (3, H, W) of 8 bits, by the definition."""
    red, green, blue = np.moveaxis(PICTURE / 255, -1, 0)
    y = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    chroma = np.stack([(blue - y) / (2 - 2 * blue_weight), (red - y) / (2 - 2 * red_weight)])
    scale, offset = (255, 0) if full else (219, 16)
    values = np.concatenate([(offset + scale * y)[None], 128 + (255 if full else 224) * chroma])
    return values.round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("space", "weights"), [(1, (0.2126, 0.0722)), (5, (0.299, 0.114)), (9, (0.2627, 0.0593))])
def test_range_and_matrix_are_those_the_file_says(space: int, weights: tuple[float, float], full: bool) -> None:
    frame = av.VideoFrame.from_ndarray(planes(*weights, full), format="yuv444p")
    frame.color_range, frame.colorspace = 2 if full else 1, space
    for codec, container, options in (("ffv1", "matroska", {}), ("libx264", "mp4", {"qp": "0"})):
        content = written(
            codec, "yuv444p", container, frame, color_range=frame.color_range, colorspace=space, options=options
        )
        assert np.abs(centres(shown(content)[0]) - centres(PICTURE)).max() <= 2
        grey = centres(shown(content, mode="grey")[0])[..., 0]
        assert np.abs(grey - centres(LUMA)).max() <= 2  # one grey for all files, as Pillow's


def test_more_bits_are_reduced_and_told() -> None:
    for pixel_format in ("yuv420p10le", "yuv444p16le", "gbrp12le", "rgb48le"):
        got, notes = shown(written("ffv1", pixel_format, "matroska"))
        assert np.abs(centres(got) - centres(PICTURE)).max() <= 3
        assert notes == ("more than 8 bits per value reduced to 8",)


def test_grey_is_read_into_both_modes() -> None:
    for pixel_format in ("gray", "gray16le"):
        content = written("ffv1", pixel_format, "matroska")
        for mode in ("grey", "rgb"):
            assert np.abs(centres(shown(content, mode=mode)[0]) - centres(LUMA)[..., None]).max() <= 1


def test_transparency_is_left_out_and_told_where_there_is_any() -> None:
    opaque = np.concatenate([PICTURE, np.full((32, 64, 1), 255, np.uint8)], 2)
    clear = opaque.copy()
    clear[:16, :16, 3] = 0
    for picture, said in ((opaque, ()), (clear, ("transparency left out",))):
        content = written("png", "rgba", "mov", av.VideoFrame.from_ndarray(picture, format="rgba"))
        got, notes = shown(content)
        assert np.array_equal(got, PICTURE)
        assert notes == said


def test_a_palette_is_there_wherever_a_clip_begins() -> None:
    """It comes with the first packet alone, and a reader that jumps would decode all as black."""
    for pixel_format, expected in (("gray", LUMA[..., None]), ("rgb24", PICTURE)):
        content = written("qtrle", pixel_format)
        clip = read_clip(io.BytesIO(content), "it", settings(size=(32, 64), frames=1), 1, 2)
        assert np.abs(centres(clip.signal[:, 0].permute(1, 2, 0).numpy()) - centres(expected)).max() <= 1


def test_side_data_that_pyav_has_no_name_for_is_no_obstacle() -> None:
    content = written("tiff", "rgb24")
    with av.open(io.BytesIO(content)) as container, pytest.raises(ValueError, match="not a valid Type"):
        _ = next(container.decode(video=0)).side_data
    for matrix, turn in ORIENTATIONS.items():
        expected = turn(PICTURE)
        assert np.array_equal(shown(turned(content, matrix), expected.shape[:2])[0], expected)


def test_interlaced_video_is_told() -> None:
    content = written("libx264", "yuv420p", "mp4", options={"x264-params": "interlaced=1", "qp": "0"})
    got, notes = shown(content)
    assert notes == ("interlaced: both fields of a picture in one frame",)
    assert np.abs(centres(got) - centres(PICTURE)).max() <= 6


def test_high_dynamic_range_is_told() -> None:
    notes = shown(written("ffv1", "yuv420p10le", "matroska", color_trc=16))[1]
    assert "high dynamic range read as it is stored" in notes


def variants() -> Iterator[tuple[str, str, str]]:
    """Codec, pixel format and container of what the encoders at hand write."""
    for codec, container in (
        *(("ffv1", "matroska"), ("jpeg2000", "mov"), ("qtrle", "mov"), ("png", "mov"), ("tiff", "mov"), ("dpx", "mov")),
        *(("libx264", "mp4"), ("mjpeg", "mov"), ("prores_ks", "mov"), ("mpeg4", "mp4"), ("magicyuv", "mov")),
        *(("v210", "mov"), ("r210", "mov"), ("v410", "mov"), ("cfhd", "mov"), ("exr", "mov"), ("ffvhuff", "avi")),
        *(("utvideo", "avi"), ("huffyuv", "avi"), ("mpeg2video", "mpegts"), ("gif", "gif"), ("flv", "flv")),
        *(("libvpx-vp9", "webm"), ("wmv2", "asf"), ("libsvtav1", "mp4"), ("libx265", "mp4")),
    ):
        if codec in av.codecs_available:
            yield from ((codec, found.name, container) for found in av.Codec(codec, "w").video_formats or [])


VARIANTS = list(variants())


def check(codec: str, pixel_format: str, container: str) -> None:
    """The picture that was written comes back, turned as the file says, or the file is refused."""
    try:
        content = written(codec, pixel_format, container)
    except (av.error.FFmpegError, ValueError):
        return  # this build doesn't write it
    matrices = ORIENTATIONS if container in ("mov", "mp4") else [(1, 0, 0, 1)]
    grey = pixel_format.startswith(("gray", "ya", "mono"))
    written_as = np.repeat(LUMA[..., None], 3, 2) if grey else PICTURE
    # One bit, sixteen or 256 colours are dithered, and lossy codecs blur.
    rough = pixel_format.startswith("mono") or codec == "gif"
    allowed = 48 if rough else 24 if codec in ("mpeg4", "mpeg2video", "flv", "wmv2", "libvpx-vp9", "libsvtav1") else 10
    for matrix in matrices:
        expected = ORIENTATIONS[matrix](written_as)
        try:
            got, _ = shown(turned(content, matrix) if len(matrices) > 1 else content, expected.shape[:2])
        except DataError:
            continue
        seen = squares if rough else centres
        assert np.abs(seen(got) - seen(expected)).max() <= allowed, (codec, pixel_format, matrix)


@pytest.mark.parametrize(("codec", "pixel_format", "container"), VARIANTS[::23])
def test_some_pixel_formats(codec: str, pixel_format: str, container: str) -> None:
    check(codec, pixel_format, container)


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "pixel_format", "container"), VARIANTS)
def test_every_pixel_format_and_orientation(codec: str, pixel_format: str, container: str) -> None:
    check(codec, pixel_format, container)


def test_there_are_variants() -> None:
    assert len(VARIANTS) > 150
