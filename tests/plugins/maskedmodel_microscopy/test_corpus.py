"""Every combination of tags that tifffile writes: the values that were written, or a refusal, and nothing else."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from maskedmodel_microscopy.tiff import read_header, read_tiff
from maskedmodel_microscopy.tiff_folder import TiffFolderSettings

from maskedmodel.errors import DataError, MaskedModelError
from tests.drawn import BOUNDED, LONG

SETTINGS = TiffFolderSettings(path="x", max_bytes=1 << 20)
DTYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "?", "c8")
WHITE = {"u1": 255, "u2": 65535, "f2": 1, "f4": 1, "f8": 1, "?": 1}
KINDS = {"minisblack": 1, "miniswhite": 1, "rgb": 3, "separated": 4, "ycbcr": 3, "cielab": 3, "palette": 1, "cfa": 1}
EXTRA = ("none", "unspecified", "assocalpha", "unassalpha")
SHAPES = ((1,), (4,), (2, 3))  # pages: one, of no meaning, and depth by channels


def stored(shape: tuple[int, ...], dtype: str, samples: int, planar: str) -> np.ndarray[Any, Any]:
    whole = 1 + np.arange(int(np.prod(shape)) * samples * 8 * 6).reshape(*shape, samples, 8, 6) % 120
    values = whole.astype(dtype)
    return values if planar == "separate" else np.moveaxis(values, -3, -1).copy()


@pytest.mark.slow
@pytest.mark.parametrize("photometric", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_combination_of_tags(photometric: str, dtype: str) -> None:
    read = written = 0
    for extra, planar, order, compression, shape, axes, big in itertools.product(
        EXTRA, ("contig", "separate"), "<>", (None, "zlib", "lzma"), SHAPES, (True, False), (False, True)
    ):
        samples = KINDS[photometric] + (extra != "none")
        array = stored(shape, dtype, samples, planar)
        if samples == 1:
            array = array.reshape(*shape, 8, 6)
        tags: dict[str, Any] = {"photometric": photometric, "byteorder": order, "compression": compression}
        tags |= {"bigtiff": big}
        if samples > 1:
            tags |= {"planarconfig": planar}
        if extra != "none":
            tags |= {"extrasamples": [extra]}
        if photometric == "palette":
            tags |= {"colormap": np.zeros((3, 256), np.uint16)}
        if axes:
            lead = {1: "C", 2: "ZC"}[len(shape)]
            tags |= {"metadata": {"axes": lead + ("YX" if samples == 1 else "YXS" if planar == "contig" else "SYX")}}
        stream = io.BytesIO()
        try:
            tifffile.imwrite(stream, array, **tags)
        except Exception:  # noqa: BLE001 - tifffile doesn't write this combination
            continue
        written += 1
        stream.seek(0)
        try:
            names, found = read_tiff(stream, "a.tif", SETTINGS)
        except DataError:
            continue
        read += 1
        assert photometric in ("minisblack", "rgb"), tags
        assert dtype in WHITE, tags
        planes = np.moveaxis(array, -1, -3) if samples > 1 and planar == "contig" else array
        planes = planes if samples > 1 else planes[..., None, :, :]
        kept = planes[..., : samples - (extra in ("assocalpha", "unassalpha")), :, :]
        whole = kept.reshape(-1, *kept.shape[-2:]) if len(shape) == 1 else kept.max(0).reshape(-1, *kept.shape[-2:])
        assert len(names) == len(found) == len(set(names)), tags
        np.testing.assert_allclose(found, whole.astype(np.float64) / WHITE[dtype], rtol=1e-6, err_msg=str(tags))
    readable = photometric == "minisblack" or (photometric == "rgb" and dtype != "?")  # bits side by side aren't
    assert bool(read) == (readable and dtype in WHITE and written > 0)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    stream = io.BytesIO()
    array = stored((3,), draw(st.sampled_from(("u1", "u2", "f4"))), 1, "contig")[..., 0]
    tifffile.imwrite(
        stream, array, photometric="minisblack", metadata={"axes": "CYX"}, ome=draw(st.booleans()),
        compression=draw(st.sampled_from((None, "zlib"))),
    )  # fmt: skip
    content = bytearray(stream.getvalue())
    for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=6)):
        content[place] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


def check(content: bytes) -> None:
    for read in (read_header, read_tiff):
        try:
            found = read(io.BytesIO(content), "a.tif", SETTINGS)
        except MaskedModelError:
            continue
        if read is read_tiff:
            names, pixels = found  # type: ignore[misc]
            assert pixels.dtype == np.float32
            assert np.isfinite(pixels).all()
            assert len(names) == len(pixels)


@given(damaged())
@BOUNDED
def test_damaged_files_are_read_or_refused(content: bytes) -> None:
    check(content)


@pytest.mark.slow
@given(damaged())
@LONG
def test_many_damaged_files_are_read_or_refused(content: bytes) -> None:
    check(content)
