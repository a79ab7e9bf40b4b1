"""Whatever bytes come, a clip or a DataError that names the file comes out, and nothing else."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from maskedmodel_video.frames import read_frames
from maskedmodel_video.reader import read_clip
from PIL import Image

from maskedmodel.errors import DataError
from tests.plugins.maskedmodel_video import conftest

VIDEOS = {
    "a.mp4": "libx264",
    "a.mov": "png",
    "a.mkv": "ffv1",
    "a.webm": "libvpx-vp9",
    "a.avi": "mpeg4",
    "a.wmv": "wmv2",
    "a.flv": "flv",
    "a.ts": "mpeg2video",
    "a.gif": "gif",
    "a.mpg": "mpeg1video",
}
IMAGES = ("png", "jpeg", "webp", "bmp", "tiff", "ppm")
QUIET = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@cache
def whole(name: str) -> bytes:
    """A small video, or an image where `name` is that of a format."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 24, 32, 3), dtype=np.uint8)
    if name in IMAGES:
        file = io.BytesIO()
        Image.fromarray(pixels[0]).save(file, name)
        return file.getvalue()
    with TemporaryDirectory() as folder:
        rate = 25 if name in ("a.ts", "a.mpg") else 10
        return conftest.write_video(Path(folder) / name, list(pixels), codec=VIDEOS[name], rate=rate).read_bytes()


@st.composite
def damaged(draw: st.DrawFn, names: tuple[str, ...]) -> bytes:
    """A file with bytes changed, left out, put in or cut off; mostly near its head."""
    content = bytearray(whole(draw(st.sampled_from(names))))
    for _ in range(draw(st.integers(1, 4))):
        most = draw(st.sampled_from([64, 600, len(content)]))
        place = draw(st.integers(0, max(min(most, len(content)) - 1, 0)))
        way = draw(st.sampled_from(["change", "ones", "zeros", "drop", "insert", "cut"]))
        if way == "change":
            content[place : place + 1] = bytes([draw(st.integers(0, 255))])
        elif way in ("ones", "zeros"):
            count = draw(st.sampled_from([1, 2, 4, 8]))
            content[place : place + count] = (b"\xff" if way == "ones" else b"\0") * count
        elif way == "drop":
            del content[place : place + draw(st.integers(1, 40))]
        elif way == "insert":
            content[place:place] = draw(st.binary(max_size=12))
        else:
            del content[place:]
    return bytes(content)


def a_clip_or_a_data_error(content: bytes, incomplete: str) -> None:
    own = conftest.settings(incomplete=incomplete, most_pixels=1 << 20, most_frames=1000)
    where: object = None
    try:
        assert read_clip(io.BytesIO(content), "it", own).signal.shape == (3, 4, 16, 16)
    except DataError as error:
        where = error.where
    assert where in (None, "it")


def a_frame_or_a_data_error(content: bytes) -> None:
    own = conftest.settings(frames=1, most_pixels=1 << 20)
    where: object = None
    try:
        assert read_frames(lambda _: (io.BytesIO(content), "it"), 1, own).signal.shape == (3, 1, 16, 16)
    except DataError as error:
        where = error.where
    assert where in (None, "it")


@settings(QUIET, max_examples=100)
@given(damaged(tuple(VIDEOS)), st.sampled_from(["refuse", "read"]))
def test_damaged_videos(content: bytes, incomplete: str) -> None:
    a_clip_or_a_data_error(content, incomplete)


@settings(QUIET, max_examples=100)
@given(damaged(IMAGES))
def test_damaged_images(content: bytes) -> None:
    a_frame_or_a_data_error(content)


@pytest.mark.slow
@settings(QUIET, max_examples=4000)
@given(damaged(tuple(VIDEOS)))
def test_many_damaged_videos(content: bytes) -> None:
    for incomplete in ("refuse", "read"):
        a_clip_or_a_data_error(content, incomplete)


@pytest.mark.slow
@settings(QUIET, max_examples=4000)
@given(damaged(IMAGES))
def test_many_damaged_images(content: bytes) -> None:
    a_frame_or_a_data_error(content)
