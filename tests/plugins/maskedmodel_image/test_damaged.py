"""Image files with bytes changed at random: a signal of the right form, or an error of ours."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maskedmodel_image.decode import decode, find_form
from maskedmodel_image.folder import ImageFolderSettings
from PIL import Image, features

from maskedmodel.errors import MaskedModelError
from tests.drawn import BOUNDED, LONG

MODES = {
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB"),
    "GIF": ("L", "P"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "PPM": ("1", "L", "RGB", "I"),
}
FORMATS = [kind for kind in MODES if kind != "WEBP" or features.check("webp")]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    kind = draw(st.sampled_from(FORMATS))
    mode = draw(st.sampled_from(MODES[kind]))
    values = np.random.default_rng(draw(st.integers(0, 5))).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    if mode == "LAB":
        image = Image.frombytes("LAB", image.size, image.tobytes())
    elif mode == "I;16":
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert("L").convert(mode) if mode in ("I", "F", "LA") else image.convert(mode)
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = draw(st.integers(0, 9))
    options = {"exif": exif} if kind in ("JPEG", "WEBP", "PNG", "TIFF") else {}
    image.save(stream, kind, **options)
    content = bytearray(stream.getvalue())
    for place in draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def check(content: bytes) -> None:
    for mode, size in (("rgb", 8), ("grey", None), ("rgba", 8)):
        settings = ImageFolderSettings(path="x", mode=mode, size=size, max_pixels=1 << 20)  # type: ignore[arg-type]
        try:
            form = find_form(io.BytesIO(content), "x", settings)
            signal = decode(io.BytesIO(content), "x", form, settings)
        except MaskedModelError:
            continue
        assert tuple(signal.shape) == form.shape
        assert signal.dtype == (torch.uint8 if form.dtype == "uint8" else torch.float32)
        assert bool(signal.float().isfinite().all())


@given(damaged())
@BOUNDED
def test_damaged_images_are_read_or_refused(content: bytes) -> None:
    check(content)


@pytest.mark.slow
@given(damaged())
@LONG
def test_many_damaged_images_are_read_or_refused(content: bytes) -> None:
    check(content)
