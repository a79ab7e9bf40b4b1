"""Reading TIFF and OME-TIFF: axes, planes, names, scales, and files that no reader can make sense of."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from maskedmodel_microscopy.ome import parse_ome
from maskedmodel_microscopy.tiff import read_header, read_tiff
from maskedmodel_microscopy.tiff_image import Header, TiffImage, TiffSettings
from pydantic import ValidationError

from maskedmodel.errors import DataError, DependencyError
from tests.plugins.maskedmodel_microscopy.files import pixels, write_ome

ABC = ["DNA", "actin", "tubulin"]


def settings(**values: Any) -> TiffSettings:
    return TiffSettings(name="tiff", **values)


def read(path: Path, **values: Any) -> tuple[tuple[str, ...], np.ndarray]:
    with path.open("rb") as stream:
        return read_tiff(stream, str(path), settings(**values))


class TestAxes:
    def test_channels_with_their_names(self, tmp_path: Path) -> None:
        stored = write_ome(tmp_path / "a.ome.tif", pixels(3, 20, 16), ABC)
        names, found = read(tmp_path / "a.ome.tif")
        assert names == tuple(ABC)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, stored.astype(np.float32) / 255)

    @pytest.mark.parametrize("axes", ["TCYX", "CTYX"])
    def test_points_in_time(self, tmp_path: Path, axes: str) -> None:
        shape = {"T": 2, "C": 3, "Y": 20, "X": 16}
        stored = write_ome(tmp_path / "a.ome.tif", pixels(*(shape[axis] for axis in axes)), ABC, axes)
        if axes == "CTYX":
            stored = stored.transpose(1, 0, 2, 3)
        for choice, expected in {0: stored[0], 1: stored[1], "middle": stored[1], "max": stored.max(0)}.items():
            np.testing.assert_array_equal(read(tmp_path / "a.ome.tif", time=choice)[1], expected / np.float32(255))

    @pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"tile": (16, 16)}])
    def test_depth(self, tmp_path: Path, more: dict[str, Any]) -> None:
        stored = write_ome(tmp_path / "a.ome.tif", pixels(5, 3, 20, 16), ABC, "ZCYX", **more)
        choices = {0: stored[0], 4: stored[4], "middle": stored[2], "max": stored.max(0)}
        for choice, expected in choices.items():
            np.testing.assert_array_equal(read(tmp_path / "a.ome.tif", z=choice)[1], expected / np.float32(255))

    def test_time_and_depth_together(self, tmp_path: Path) -> None:
        stored = write_ome(tmp_path / "a.ome.tif", pixels(2, 4, 3, 20, 16), ABC, "TZCYX")
        found = read(tmp_path / "a.ome.tif", time=1, z="max")[1]
        np.testing.assert_array_equal(found, stored[1].max(0) / np.float32(255))

    def test_other_planes_than_the_chosen_are_not_decoded(self, tmp_path: Path, monkeypatch: Any) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(2, 4, 3, 20, 16), ABC, "TZCYX", compression="zlib")
        decoded, decode = [], tifffile.TiffPage.asarray
        monkeypatch.setattr(tifffile.TiffPage, "asarray", lambda page, **kw: decoded.append(1) or decode(page, **kw))
        frame = tifffile.TiffFrame.asarray
        monkeypatch.setattr(tifffile.TiffFrame, "asarray", lambda page, **kw: decoded.append(1) or frame(page, **kw))
        read(tmp_path / "a.ome.tif", time=1, z=2)
        assert 3 <= len(decoded) <= 6  # a frame may ask its page

    def test_channels_last(self, tmp_path: Path) -> None:
        stored = write_ome(tmp_path / "a.ome.tif", pixels(20, 16, 3), axes="YXC", planarconfig="contig")
        names, found = read(tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(found, stored.transpose(2, 0, 1) / np.float32(255))
        assert names == ("channel 0", "channel 1", "channel 2")

    @pytest.mark.parametrize("count", [3, 4])
    def test_colours(self, tmp_path: Path, count: int) -> None:
        stored = pixels(20, 16, count)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb")
        names, found = read(tmp_path / "a.tif")
        assert names == ("red", "green", "blue")
        np.testing.assert_array_equal(found, stored.transpose(2, 0, 1)[:3] / np.float32(255))

    def test_colours_in_ome(self, tmp_path: Path) -> None:
        stored = write_ome(tmp_path / "a.ome.tif", pixels(20, 16, 3), axes="YXS", photometric="rgb")
        names, found = read(tmp_path / "a.ome.tif")
        assert names == ("red", "green", "blue")
        assert found.shape == (3, 20, 16)
        np.testing.assert_array_equal(found[1], stored[..., 1] / np.float32(255))

    def test_one_channel(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(20, 16))
        names, found = read(tmp_path / "a.tif")
        assert (names, found.shape) == (("channel 0",), (1, 20, 16))

    def test_pages_without_a_meaning_are_channels(self, tmp_path: Path) -> None:
        stored = pixels(4, 20, 16)
        tifffile.imwrite(tmp_path / "a.tif", stored, metadata=None, photometric="minisblack")
        names, found = read(tmp_path / "a.tif")
        assert names == tuple(f"channel {place}" for place in range(4))
        np.testing.assert_array_equal(found, stored / np.float32(255))
        np.testing.assert_array_equal(read(tmp_path / "a.tif", axes="ZYX")[1][0], stored.max(0) / np.float32(255))

    def test_imagej_stacks_and_labels(self, tmp_path: Path) -> None:
        stored = pixels(2, 3, 20, 16, dtype=np.uint16)
        tifffile.imwrite(tmp_path / "a.tif", stored, imagej=True, metadata={"axes": "ZCYX"})
        assert read(tmp_path / "a.tif")[1].shape == (3, 20, 16)
        tifffile.imwrite(tmp_path / "b.tif", stored[0], imagej=True, metadata={"axes": "CYX", "Labels": ABC})
        names, found = read(tmp_path / "b.tif")
        assert names == tuple(ABC)
        np.testing.assert_array_equal(found, stored[0] / np.float32(65535))

    def test_two_axes_without_a_meaning_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(2, 3, 20, 16), photometric="minisblack")
        with pytest.raises(DataError, match=r"(?s)axes are none.*QQYX \(2, 3, 20, 16\).*data.axes="):
            read(tmp_path / "a.tif")
        assert read(tmp_path / "a.tif", axes="ZCYX")[1].shape == (3, 20, 16)
        with pytest.raises(DataError, match="another number of axes"):
            read(tmp_path / "a.tif", axes="CYX")

    def test_several_images_in_a_file(self, tmp_path: Path) -> None:
        first, second = pixels(2, 20, 16), pixels(3, 12, 10)
        with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
            writer.write(first, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": ABC[:2]}})
            writer.write(second, photometric="minisblack", metadata={"axes": "CYX", "Channel": {"Name": ABC}})
        assert read(tmp_path / "a.ome.tif")[0] == ("DNA", "actin")
        names, found = read(tmp_path / "a.ome.tif", series=1)
        assert (names, found.shape) == (tuple(ABC), (3, 12, 10))
        with pytest.raises(DataError, match="series below 2"):
            read(tmp_path / "a.ome.tif", series=2)

    def test_the_header_alone_says_names_and_size(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ome.tif"
        write_ome(path, pixels(2, 3, 20, 16), ["DNA", "DNA", "actin"], "ZCYX")
        with path.open("rb") as stream:
            assert read_header(stream, str(path), settings()) == Header(("DNA", "DNA (2)", "actin"), 20, 16)

    @pytest.mark.parametrize("choice", [{"z": 3}, {"time": 1}])
    def test_a_plane_that_is_not_there_is_refused(self, tmp_path: Path, choice: dict[str, int]) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(3, 2, 20, 16), ABC[:2], "ZCYX")
        with pytest.raises(DataError, match=r"(?s)no such plane.*data\.(z below 3|time below 1)"):
            read(tmp_path / "a.ome.tif", **choice)


class TestScales:
    def test_each_type_has_its_white(self, tmp_path: Path) -> None:
        for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
            stored = write_ome(tmp_path / "a.ome.tif", pixels(2, 8, 8, dtype=dtype))
            np.testing.assert_array_equal(read(tmp_path / "a.ome.tif")[1], stored / np.float32(white))

    def test_significant_bits_say_what_white_is(self, tmp_path: Path) -> None:
        stored = pixels(2, 8, 8, dtype=np.uint16) // 16
        tifffile.imwrite(
            tmp_path / "a.ome.tif", stored, ome=True, photometric="minisblack",
            metadata={"axes": "CYX", "SignificantBits": 12},
        )  # fmt: skip
        np.testing.assert_array_equal(read(tmp_path / "a.ome.tif")[1], stored / np.float32(4095))
        found = read(tmp_path / "a.ome.tif", full_scale=1000)[1]
        np.testing.assert_array_equal(found, stored / np.float32(1000))

    @pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
    def test_floats_stay(self, tmp_path: Path, dtype: Any) -> None:
        stored = 300 * pixels(2, 8, 8, dtype=dtype) - 20
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", metadata={"axes": "CYX"})
        np.testing.assert_array_equal(read(tmp_path / "a.tif")[1], stored.astype(np.float32))

    @pytest.mark.parametrize("dtype", [np.int16, np.uint32])
    def test_other_integers_need_a_white(self, tmp_path: Path, dtype: Any) -> None:
        stored = pixels(2, 8, 8, dtype=dtype)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", metadata={"axes": "CYX"})
        with pytest.raises(DataError, match=rf"(?s)which value is white.*{np.dtype(dtype)}.*data.full_scale"):
            read(tmp_path / "a.tif")
        found = read(tmp_path / "a.tif", full_scale=1024)[1]
        np.testing.assert_array_equal(found, stored.astype(np.float32) / np.float32(1024))

    def test_complex_numbers_are_refused(self, tmp_path: Path) -> None:
        tifffile.imwrite(tmp_path / "a.tif", pixels(8, 8, dtype=np.float32).astype(np.complex64))
        with pytest.raises(DataError, match="which value is white"):
            read(tmp_path / "a.tif", full_scale=2)

    @pytest.mark.parametrize("photometric", ["miniswhite", "palette"])
    def test_values_that_are_no_intensities_are_refused(self, tmp_path: Path, photometric: str) -> None:
        more = {"colormap": np.zeros((3, 256), np.uint16)} if photometric == "palette" else {}
        tifffile.imwrite(tmp_path / "a.tif", pixels(8, 8), photometric=photometric, **more)
        with pytest.raises(DataError, match=rf"(?s)aren't intensities.*{photometric.upper()}"):
            read(tmp_path / "a.tif")


class TestTags:
    @pytest.mark.parametrize("kind", ["unspecified", "assocalpha", "unassalpha"])
    def test_a_fourth_sample_is_left_out_only_where_it_is_transparency(self, tmp_path: Path, kind: str) -> None:
        stored = pixels(8, 9, 4)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=[kind])
        names, found = read(tmp_path / "a.tif")
        kept = 4 if kind == "unspecified" else 3
        assert names == ("red", "green", "blue", "sample 3")[:kept]
        np.testing.assert_array_equal(found, np.moveaxis(stored, -1, 0)[:kept] / np.float32(255))

    @pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
    def test_transparency_of_grey_is_no_stain(self, tmp_path: Path, kind: str) -> None:
        stored = pixels(8, 9, 2)
        tifffile.imwrite(
            tmp_path / "a.tif", stored, photometric="minisblack", planarconfig="contig", extrasamples=[kind]
        )
        names, found = read(tmp_path / "a.tif")
        assert names == ("channel 0",)
        np.testing.assert_array_equal(found, stored[None, ..., 0] / np.float32(255))

    @pytest.mark.parametrize("photometric", ["separated", "ycbcr", "cielab", "cfa"])
    def test_inks_and_other_colours_are_refused(self, tmp_path: Path, photometric: str) -> None:
        count = {"separated": 4, "cfa": 1}.get(photometric, 3)
        tifffile.imwrite(tmp_path / "a.tif", pixels(8, 9, count).squeeze(), photometric=photometric)
        with pytest.raises(DataError, match=rf"(?s)aren't intensities.*{photometric.upper()}"):
            read(tmp_path / "a.tif")

    @pytest.mark.parametrize("orientation", [3, 6])
    def test_a_file_that_is_to_be_turned_is_refused(self, tmp_path: Path, orientation: int) -> None:
        turned = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "a.tif", pixels(8, 9), photometric="minisblack", extratags=turned)
        with pytest.raises(DataError, match=rf"(?s)turned.*orientation {orientation}"):
            read(tmp_path / "a.tif")

    def test_packed_integers_have_the_white_of_their_bits(self, tmp_path: Path) -> None:
        # imagecodecs, which unpacks them, is no dependency: the tag is read from a file, its pixels from another.
        path, stored = tmp_path / "a.tif", pixels(8, 9, dtype=np.uint16) // 16
        tifffile.imwrite(path, stored, photometric="minisblack")
        with tifffile.TiffFile(path) as file:
            place = file.pages[0].tags["BitsPerSample"].valueoffset  # type: ignore[union-attr]
            image = TiffImage(file.series[0], None, [], str(path), settings())
            image.bits = 12
            np.testing.assert_array_equal(image.pixels(), stored[None] / np.float32(4095))
        content = bytearray(path.read_bytes())
        content[place : place + 2] = (12).to_bytes(2, "little")
        path.write_bytes(content)
        with tifffile.TiffFile(path) as file:
            assert TiffImage(file.series[0], None, [], str(path), settings()).bits == 12
        with pytest.raises(DependencyError, match=r"(?s)a\.tif.*imagecodecs"):
            read(path)


class TestBroken:
    def test_an_empty_picture(self, tmp_path: Path) -> None:
        write_ome(tmp_path / "a.ome.tif", np.zeros((2, 8, 8), np.uint8))
        with pytest.raises(DataError, match=r"(?s)picture is empty.*a\.ome\.tif.*0 everywhere"):
            read(tmp_path / "a.ome.tif")

    def test_one_dead_channel_is_no_reason(self, tmp_path: Path) -> None:
        stored = pixels(2, 8, 8)
        stored[1] = 0
        write_ome(tmp_path / "a.ome.tif", stored)
        assert read(tmp_path / "a.ome.tif")[1][1].max() == 0

    def test_nan(self, tmp_path: Path) -> None:
        stored = pixels(2, 8, 8, dtype=np.float32)
        stored[1, 3, 4] = np.nan
        write_ome(tmp_path / "a.ome.tif", stored)
        with pytest.raises(DataError, match=r"(?s)holds NaN.*1 of 128.*data.nan=absent"):
            read(tmp_path / "a.ome.tif")
        np.testing.assert_array_equal(read(tmp_path / "a.ome.tif", nan="absent")[1], stored)
        write_ome(tmp_path / "b.ome.tif", np.full((2, 8, 8), np.nan, np.float32))
        for choice in ("absent", "refuse"):
            with pytest.raises(DataError, match="no channel is there"):
                read(tmp_path / "b.ome.tif", nan=choice)

    @pytest.mark.parametrize("value", [np.inf, 1e300])
    def test_infinity(self, tmp_path: Path, value: float) -> None:
        stored = pixels(8, 8, dtype=np.float64)
        stored[3, 4] = value
        tifffile.imwrite(tmp_path / "a.tif", stored)
        with pytest.raises(DataError, match=r"(?s)infinite.*1 of them"):
            read(tmp_path / "a.tif")

    @pytest.mark.parametrize("more", [{}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}])
    @pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.5, 0.9, 0.999])
    def test_a_truncated_file_is_never_read_in_part(self, tmp_path: Path, more: dict[str, Any], share: float) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(3, 64, 48, dtype=np.uint16), ABC, **more)
        whole = (tmp_path / "a.ome.tif").read_bytes()
        (tmp_path / "cut.ome.tif").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=r"(?s)truncated.*cut\.ome\.tif"):
            read(tmp_path / "cut.ome.tif")

    @pytest.mark.parametrize("content", [b"", b"GIF89a...", b"II*\x00", b"II*\x00\xff\xff\xff\xff", b"MM\x00*" * 50])
    def test_what_is_no_tiff(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.tif").write_bytes(content)
        with pytest.raises(DataError, match=r"(?s)a\.tif"):
            read(tmp_path / "a.tif")

    def test_bytes_changed_anywhere_give_a_result_or_a_data_error(self, tmp_path: Path) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(2, 24, 16), ABC[:2], compression="zlib")
        whole, draw = (tmp_path / "a.ome.tif").read_bytes(), np.random.default_rng(0)
        for _ in range(150):
            damaged = bytearray(whole)
            for place in draw.integers(0, len(whole), 3):
                damaged[place] = draw.integers(0, 256)
            (tmp_path / "b.ome.tif").write_bytes(damaged)
            try:
                _, found = read(tmp_path / "b.ome.tif", max_bytes=1 << 20, nan="absent")
            except (DataError, DependencyError):  # another number may stand for a compression that isn't installed
                continue
            assert found.ndim == 3
            assert not np.isinf(found).any()

    def test_more_than_was_bargained_for(self, tmp_path: Path) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(4, 2, 20, 16), ABC[:2], "ZCYX")
        with pytest.raises(DataError, match=r"(?s)too many pixels.*max_bytes = 1000.*8 planes of 20 x 16, 2560 bytes"):
            read(tmp_path / "a.ome.tif", max_bytes=1000)
        assert read(tmp_path / "a.ome.tif", max_bytes=1000, z=0)[1].shape == (2, 20, 16)

    @pytest.mark.skipif(find_spec("imagecodecs") is not None, reason="imagecodecs is here, so nothing is missing")
    @pytest.mark.parametrize("compression", ["LZW", "JPEG", "ZSTD", "WEBP", "JPEG2000", "JPEGXL", "LERC"])
    def test_a_compression_that_needs_another_package(self, tmp_path: Path, compression: str) -> None:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, pixels(8, 9), photometric="minisblack", compression="zlib")
        with tifffile.TiffFile(path) as file:
            place = file.pages[0].tags["Compression"].valueoffset  # type: ignore[union-attr]
        content = bytearray(path.read_bytes())
        content[place : place + 2] = int(tifffile.COMPRESSION[compression]).to_bytes(2, "little")
        path.write_bytes(content)
        # Python 3.14 has zstd itself, and then finds that these bytes are none.
        built_in = compression == "ZSTD" and sys.version_info >= (3, 14)
        with pytest.raises(
            DataError if built_in else DependencyError, match=r"(?s)a\.tif.*" + ("" if built_in else "imagecodecs")
        ):
            read(path)

    def test_without_tifffile(self, tmp_path: Path, monkeypatch: Any) -> None:
        write_ome(tmp_path / "a.ome.tif", pixels(2, 24, 16))
        monkeypatch.setitem(sys.modules, "tifffile", None)
        with pytest.raises(DependencyError, match="uv sync --extra microscopy"):
            read(tmp_path / "a.ome.tif")

    def test_planes_in_other_files_are_never_looked_for(self, tmp_path: Path) -> None:
        write_ome(tmp_path / "other.ome.tif", pixels(2, 20, 16))
        write_ome(tmp_path / "a.ome.tif", pixels(2, 20, 16))
        text = tifffile.tiffcomment(tmp_path / "a.ome.tif")
        elsewhere = '<TiffData IFD="0"><UUID FileName="other.ome.tif">urn:uuid:other</UUID></TiffData></Pixels>'
        tifffile.tiffcomment(tmp_path / "a.ome.tif", text.replace("</Pixels>", elsewhere))
        with pytest.raises(DataError, match=r"(?s)one of a set.*other\.ome\.tif"):
            read(tmp_path / "a.ome.tif")


class TestOme:
    def wrap(self, inside: str, before: str = "") -> str:
        return f'{before}<OME xmlns="http://x/Schemas/OME/2016-06" UUID="urn:uuid:me">{inside}</OME>'

    def test_names_and_bits(self) -> None:
        inside = (
            '<Image ID="a"><Pixels SignificantBits="12"><Channel ID="c" Name=" DNA "/><Channel/>'
            '<Channel Name="HE" SamplesPerPixel="3"/></Pixels></Image><Image/>'
        )
        first, second = parse_ome(self.wrap(inside), "here")
        assert first.names == ("DNA", None, "HE 0", "HE 1", "HE 2")
        assert first.bits == 12
        assert (second.names, second.bits) == ((), None)

    def test_older_schemas_and_none(self) -> None:
        text = '<OME><Image><Pixels><Channel Name="DNA"/></Pixels></Image></OME>'
        assert parse_ome(text, "here")[0].names == ("DNA",)

    @pytest.mark.parametrize(
        "before",
        ['<!DOCTYPE x [<!ENTITY a "b">]>', '<!doctype x SYSTEM "file:///etc/hostname">', "< !x>", "<! ENTITY a>"],
    )
    def test_documents_that_declare_things_are_refused(self, before: str) -> None:
        with pytest.raises(DataError, match=r"(?s)(document type|can't be read).*here"):
            parse_ome(self.wrap("", before), "here")

    def test_a_binary_only_part_of_a_set_is_refused(self) -> None:
        with pytest.raises(DataError, match=r"(?s)one of a set.*companion\.ome"):
            parse_ome(self.wrap('<BinaryOnly MetadataFile="companion.ome" UUID="u"/>'), "here")

    def test_its_own_planes_by_its_own_name_are_fine(self) -> None:
        inside = '<Image><Pixels><TiffData><UUID FileName="me.tif">urn:uuid:me</UUID></TiffData></Pixels></Image>'
        assert len(parse_ome(self.wrap(inside), "here")) == 1


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"axes": "CXX"}, "each axis once"),
        ({"axes": "CX"}, "Y and X"),
        ({"axes": "QYX"}, "T time"),
        ({"z": -1}, "greater than or equal to 0"),
        ({"z": "mean"}, "middle"),
        ({"full_scale": 0}, "greater than 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**values)
