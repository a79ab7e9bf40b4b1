"""TIFF by its tags: each combination gives the values that were written, or is refused by an error of ours."""

from __future__ import annotations

import io
import itertools
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from maskedmodel_image.decode import decode, find_form
from maskedmodel_image.folder import ImageFolder, ImageFolderSettings
from PIL import Image
from torch import Tensor

from maskedmodel.errors import DataError

RAMP = np.arange(240, dtype=np.uint8).reshape(12, 20)


def tiff(array: np.ndarray[Any, Any], **tags: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **tags)
    return stream.getvalue()


def read(data: bytes, mode: str = "grey", **more: Any) -> Tensor:
    settings = ImageFolderSettings(**{"path": "x", "size": None, "mode": mode, "dtype": "float32", **more})  # type: ignore[arg-type]
    return decode(io.BytesIO(data), "x.tif", find_form(io.BytesIO(data), "x.tif", settings), settings)


def planes(count: int, dtype: Any, planar: str) -> np.ndarray[Any, Any]:
    """Planes that differ, as the file holds them."""
    whole = np.stack([np.roll(RAMP, 7 * place).astype(dtype) for place in range(count)])
    return whole if planar == "separate" else np.moveaxis(whole, 0, -1).copy()


class TestWhiteIsZero:
    @pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535)])
    @pytest.mark.parametrize("compression", [None, "zlib"])
    def test_it_is_turned_round_at_every_depth(self, dtype: Any, white: int, compression: str | None) -> None:
        values = RAMP.astype(dtype) * (white // 255)
        signal = read(tiff(values, photometric="miniswhite", compression=compression))
        torch.testing.assert_close(signal[0], torch.from_numpy(1 - values / white).float())

    def test_one_bit(self) -> None:
        bits = RAMP > 100
        for photometric, white in (("minisblack", bits), ("miniswhite", ~bits)):
            assert torch.equal(read(tiff(bits, photometric=photometric))[0], torch.from_numpy(white).float())

    def test_floating_point_without_a_black_is_refused(self) -> None:
        with pytest.raises(DataError, match="0 is white"):
            read(tiff(RAMP.astype(np.float32), photometric="miniswhite"))


class TestDepths:
    @pytest.mark.parametrize("planar", ["separate", "contig"])
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize(("count", "photometric"), [(3, "rgb"), (4, "rgb"), (4, "separated"), (2, "minisblack")])
    def test_deep_samples_side_by_side_are_never_read_as_bytes(
        self, planar: str, order: str, count: int, photometric: str
    ) -> None:
        data = tiff(planes(count, np.uint16, planar), photometric=photometric, planarconfig=planar, byteorder=order)
        with pytest.raises(DataError):
            read(data, "rgb")

    @pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float16, np.float64])
    def test_signed_and_other_depths_are_refused(self, dtype: Any) -> None:
        with pytest.raises(DataError):
            read(tiff((RAMP.astype(np.int64) - 100).astype(dtype), photometric="minisblack"))

    def test_packed_twelve_bits_have_their_own_white(self) -> None:
        values = (RAMP.astype(np.uint16) * 17).reshape(12, 20)
        pairs = values.reshape(-1, 2).astype(np.uint32)
        packed = np.stack([pairs[:, 0] >> 4, ((pairs[:, 0] & 15) << 4) | (pairs[:, 1] >> 8), pairs[:, 1] & 255], 1)
        data = bytearray(tiff(packed.astype(np.uint8).reshape(12, 30), photometric="minisblack", rowsperstrip=12))
        with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
            places = {tag.code: tag.valueoffset for tag in file.pages[0].tags}  # type: ignore[union-attr]
        data[places[256] : places[256] + 2] = (20).to_bytes(2, "little")
        data[places[258] : places[258] + 2] = (12).to_bytes(2, "little")
        torch.testing.assert_close(read(bytes(data))[0], torch.from_numpy(values / 4095).float())


class TestExtraSamples:
    @pytest.mark.parametrize("planar", ["separate", "contig"])
    @pytest.mark.parametrize(("base", "photometric", "mode"), [(3, "rgb", "rgb"), (1, "minisblack", "grey")])
    def test_alpha_is_laid_over_white_whether_or_not_colours_were_multiplied(
        self, planar: str, base: int, photometric: str, mode: str
    ) -> None:
        colours, alpha = planes(base, np.uint8, "separate"), np.full((1, 12, 20), 102, np.uint8)
        expected = (colours / 255) * 0.4 + 0.6
        for kind, stored in (("unassalpha", colours), ("assocalpha", (colours * 0.4).round().astype(np.uint8))):
            refused = planar == "separate" and (base == 1 or kind == "assocalpha")
            whole = np.concatenate([stored, alpha])
            whole = whole if planar == "separate" else np.moveaxis(whole, 0, -1).copy()
            data = tiff(whole, photometric=photometric, planarconfig=planar, extrasamples=[kind])
            if refused:  # Pillow mixes the planes up
                with pytest.raises(DataError, match="plane by plane"):
                    read(data, mode)
            else:
                np.testing.assert_allclose(read(data, mode).numpy(), expected, atol=2.6 / 255)

    @pytest.mark.parametrize("count", [4, 5])
    def test_samples_that_nothing_is_said_of_are_left_out_and_told(self, count: int, tmp_path: Any) -> None:
        whole = planes(count, np.uint8, "contig")
        data = tiff(whole, photometric="rgb", planarconfig="contig", extrasamples=["unspecified"] * (count - 3))
        np.testing.assert_allclose(read(data, "rgb").numpy(), np.moveaxis(whole[..., :3], -1, 0) / 255, rtol=1e-6)
        for number in range(12):
            (tmp_path / f"{number}.tif").write_bytes(data)
        texts = [fact.text for fact in ImageFolder(path=str(tmp_path)).facts() if fact.notice]
        assert texts == [
            f"of 12 images, 12 hold samples that their tags say nothing of ({count - 3} a pixel): left out"
        ]


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    @pytest.mark.parametrize("size", [None, 8])
    def test_a_tiff_stands_upright(self, orientation: int, dtype: Any, size: int | None) -> None:
        # What each orientation does to rows and columns, by the TIFF specification.
        turned = {
            1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1],
            5: RAMP.T, 6: np.rot90(RAMP, -1), 7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP),
        }[orientation]  # fmt: skip
        white = {"u1": 255, "u2": 65535, "f4": 1}[np.dtype(dtype).str[1:]]
        data = tiff(RAMP.astype(dtype), photometric="minisblack", extratags=[(274, "H", 1, orientation, True)])
        signal = read(data, size=size)[0]
        expected = torch.from_numpy(np.ascontiguousarray(turned)).float() / white
        if size is None:
            torch.testing.assert_close(signal, expected)
        else:
            assert signal.shape == (8, 8)
            trend = (expected[0].mean() < expected[-1].mean(), expected[:, 0].mean() < expected[:, -1].mean())
            assert (signal[0].mean() < signal[-1].mean(), signal[:, 0].mean() < signal[:, -1].mean()) == trend


class TestKinds:
    def test_a_palette_is_looked_up(self) -> None:
        colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16)
        data = tiff(RAMP, photometric="palette", colormap=colours * 257)
        assert torch.equal(read(data, "rgb", dtype="uint8"), torch.from_numpy(colours[:, RAMP].astype(np.uint8)))

    @pytest.mark.parametrize("planar", ["separate", "contig"])
    def test_cmyk_is_made_rgb_as_pillow_does(self, planar: str) -> None:
        whole = planes(4, np.uint8, planar)
        data = tiff(whole, photometric="separated", planarconfig=planar)
        inks = np.moveaxis(whole, 0, -1) if planar == "separate" else whole
        expected = np.asarray(Image.frombytes("CMYK", (20, 12), inks.tobytes()).convert("RGB"))
        assert torch.equal(read(data, "rgb", dtype="uint8"), torch.from_numpy(np.moveaxis(expected, -1, 0).copy()))

    @pytest.mark.parametrize("photometric", ["ycbcr", "cielab", "icclab", "itulab", "cfa"])
    def test_values_that_are_no_intensities_are_refused(self, photometric: str) -> None:
        count = 1 if photometric == "cfa" else 3
        whole = planes(count, np.uint8, "contig").squeeze()
        with pytest.raises(DataError):
            read(tiff(whole, photometric=photometric), "rgb")

    def test_jpeg_in_tiff_is_read(self) -> None:
        stream = io.BytesIO()
        smooth = np.linspace(0, 255, 48 * 32 * 3).reshape(32, 48, 3).astype(np.uint8)
        Image.fromarray(smooth).save(stream, "TIFF", compression="jpeg", quality=95)
        signal = read(stream.getvalue(), "rgb", dtype="uint8").float()
        assert (signal - torch.from_numpy(smooth).permute(2, 0, 1)).abs().mean() < 4


def test_what_images_were_taken_for_is_told(tmp_path: Any) -> None:
    for number in range(4):
        Image.fromarray(RAMP).save(tmp_path / f"grey{number}.png")
    Image.fromarray(np.stack([RAMP] * 4, -1), "RGBA").save(tmp_path / "clear.png")
    Image.fromarray(np.stack([RAMP] * 4, -1), "CMYK").save(tmp_path / "inks.jpg")
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(np.stack([RAMP] * 3, -1)).save(tmp_path / "turned.jpg", exif=exif)
    Image.fromarray(RAMP).save(
        tmp_path / "moving.gif", save_all=True, append_images=[Image.fromarray(RAMP.T[:12, :12])]
    )
    (tmp_path / "white.tif").write_bytes(tiff(RAMP, photometric="miniswhite"))
    (tmp_path / "broken.png").write_bytes(b"nothing")
    facts = [fact for fact in ImageFolder(path=str(tmp_path)).facts() if fact.about in ("images", "size")]
    assert facts[0].text == "of 10 images: 4 PNG L, 1 PNG RGBA, 1 JPEG CMYK, 1 GIF P, 1 JPEG RGB and 1 more"
    assert facts[1].text == "of 10 images: 8 12 x 20, 1 20 x 12"
    assert sorted(fact.text for fact in facts if fact.notice) == [
        "of 10 images, 1 are CMYK, made RGB without a colour profile",
        "of 10 images, 1 are animations, of which the first picture is read",
        "of 10 images, 1 are transparent: laid over white",
        "of 10 images, 1 are turned upright",
        "of 10 images, 1 can't be opened",
        "of 10 images, 1 have 0 for white: turned round",
    ]


DTYPES = "u1 i1 u2 i2 u4 i4 f2 f4 f8".split()  # noqa: SIM905
KINDS = ("minisblack", "miniswhite", "rgb", "separated", "ycbcr", "cielab", "palette")
SAMPLES = {"minisblack": 1, "miniswhite": 1, "palette": 1, "rgb": 3, "separated": 4, "ycbcr": 3, "cielab": 3}
EXTRA = ("none", "unspecified", "assocalpha", "unassalpha")
COMPRESSIONS = (None, "zlib", "packbits", "lzma")


def reference(stored: np.ndarray[Any, Any], photometric: str, extra: str, dtype: str) -> np.ndarray[Any, Any] | None:
    """(C, H, W) as floats from planes (S, H, W), by the TIFF specification; None where nothing says what they mean."""
    white = {"u1": 255, "u2": 65535}.get(dtype, 1)
    values = stored.astype(np.float64) / white
    count = SAMPLES[photometric]
    if photometric == "miniswhite":
        values = np.concatenate([1 - values[:1], values[1:]])
    if photometric == "separated":
        inks = np.moveaxis(stored[:4], 0, -1).astype(np.uint8)
        return np.moveaxis(np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")), -1, 0) / 255
    if photometric in ("minisblack", "miniswhite", "rgb"):
        if extra in ("assocalpha", "unassalpha"):
            share = values[count : count + 1]
            return values[:count] + 1 - share if extra == "assocalpha" else values[:count] * share + 1 - share
        return values[:count]
    return None


@pytest.mark.slow
@pytest.mark.parametrize("photometric", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_combination_of_tags(photometric: str, dtype: str) -> None:
    """All that tifffile writes is read as it was written, or refused."""
    outcomes = {"read": 0, "refused": 0}
    for extra, planar, order, compression, orientation, predictor in itertools.product(
        EXTRA, ("contig", "separate"), "<>", COMPRESSIONS, (1, 3, 6), (False, True)
    ):
        count = SAMPLES[photometric] + (extra != "none")
        stored = planes(count, dtype, "separate")
        if extra == "assocalpha" and np.dtype(dtype).kind == "u":
            stored[:-1] = stored[:-1].astype(np.float64) * (stored[-1] / np.iinfo(dtype).max)
        array = stored if planar == "separate" else np.moveaxis(stored, 0, -1).copy()
        tags: dict[str, Any] = {"photometric": photometric, "byteorder": order, "compression": compression}
        tags["extratags"] = [(274, "H", 1, orientation, True)]
        tags["predictor"] = predictor
        if count > 1:
            tags |= {"planarconfig": planar}
        if extra != "none":
            tags |= {"extrasamples": [extra]}
        if photometric == "palette":
            tags |= {"colormap": np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)}
        try:
            data = tiff(array.squeeze(), **tags)
        except Exception:  # noqa: BLE001 - tifffile doesn't write this combination
            continue
        try:
            signal = read(data, "rgb").numpy()
        except DataError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        if photometric == "palette":
            expected: np.ndarray[Any, Any] | None = (tags["colormap"][:, stored[0].astype(int)] >> 8) / 255
        else:
            expected = reference(stored, photometric, extra, dtype)
        assert expected is not None, f"{tags} was read, but means nothing here"
        expected = np.broadcast_to(expected, (3, *expected.shape[1:])) if len(expected) == 1 else expected
        upright = np.stack([np.asarray(_upright(plane, orientation)) for plane in expected])
        np.testing.assert_allclose(
            signal, upright, atol=(3.1 if extra == "assocalpha" else 1.1) / 255, err_msg=str(tags)
        )
    readable = {"minisblack": ("u1", "u2", "f4"), "miniswhite": ("u1", "u2"), "cielab": (), "ycbcr": ()}
    assert bool(outcomes["read"]) == (dtype in readable.get(photometric, ("u1",)))
    assert sum(outcomes.values()) or (photometric == "palette" and dtype != "u1")  # which tifffile doesn't write


def _upright(plane: np.ndarray[Any, Any], orientation: int) -> np.ndarray[Any, Any]:
    return {1: plane, 3: plane[::-1, ::-1], 6: np.rot90(plane, -1)}[orientation]
