import io
import struct
import zlib

import numpy as np
import pytest
import torch
from maskedmodel_image.decode import ImageFileSettings, decode, find_form
from PIL import Image, ImageFile, features

from maskedmodel.errors import DataError


def encode(array, form="PNG", mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def read(data, name="picture.png", **settings):
    own = ImageFileSettings(**{"name": "test", "size": None, **settings})
    return decode(io.BytesIO(data), name, find_form(io.BytesIO(data), name, own), own)


def colours(height=6, width=8):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chw(array):
    return torch.from_numpy(array.transpose(2, 0, 1).copy())


def png(width, height, depth, colour, rows):
    """A PNG written by hand, for depths Pillow can't write. `rows` are the unfiltered bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_colour_keeps_its_values(form):
    array = colours()
    signal = read(encode(array, form))
    assert signal.dtype == torch.uint8
    assert torch.equal(signal, chw(array))


def test_grey_as_it_is_or_in_every_channel():
    grey = colours()[:, :, 0]
    assert torch.equal(read(encode(grey), mode="grey")[0], torch.from_numpy(grey))
    assert torch.equal(read(encode(grey)), torch.from_numpy(grey).expand(3, -1, -1))


def test_colour_as_grey_is_its_luma():
    array = colours()
    luma = array.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(read(encode(array), mode="grey")[0].numpy() - luma).max() <= 1


def test_a_palette_is_looked_up():
    image = Image.fromarray(colours()).quantize(16)
    assert torch.equal(read(encode(image)), chw(np.array(image.convert("RGB"))))


def test_transparent_parts_of_a_palette_are_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    signal = read(encode(image, transparency=0))
    assert signal[:, 0].T.tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_over_white_and_opaque_pixels_keep_their_values(mode):
    image = Image.fromarray(colours()).convert(mode)
    alpha = np.full((6, 8), 255, dtype=np.uint8)
    alpha[0] = 0
    image.putalpha(Image.fromarray(alpha))
    signal, opaque = read(encode(image)), chw(np.array(image.convert("RGB")))
    assert torch.equal(signal[:, 1:], opaque[:, 1:])
    assert (signal[:, 0] == 255).all()


def test_rgba_keeps_the_alpha():
    array = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    assert torch.equal(read(encode(array), mode="rgba"), chw(array))


def test_cmyk_goes_through_pillow():
    image = Image.fromarray(colours()).convert("CMYK")
    data = encode(image, "TIFF")
    assert torch.equal(read(data), chw(np.array(image.convert("RGB"))))


def test_one_bit_is_black_and_white():
    bits = np.random.default_rng(0).random((6, 8)) > 0.5
    assert torch.equal(read(encode(Image.fromarray(bits)), mode="grey")[0] > 0, torch.from_numpy(bits))
    assert set(read(encode(Image.fromarray(bits)), mode="grey").unique().tolist()) == {0, 255}


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_grey_is_a_share_of_65535(form):
    array = np.random.default_rng(0).integers(0, 65536, (6, 8), dtype=np.uint16)
    signal = read(encode(array, form), mode="grey")
    assert signal.dtype == torch.float32
    assert torch.equal((signal[0].double() * 65535).round().long(), torch.from_numpy(array.astype(np.int64)))
    assert torch.equal(read(encode(array, form)), signal.expand(3, -1, -1))


def test_sixteen_bit_grey_survives_resizing():
    ramp = np.linspace(0, 65535, 64).astype(np.uint16)[None].repeat(64, 0)
    signal = read(encode(ramp), mode="grey", size=16)
    assert signal.unique().numel() >= 16
    torch.testing.assert_close(signal.mean(), torch.tensor(0.5), atol=1e-3, rtol=0)


def test_float_keeps_its_values():
    array = np.random.default_rng(0).normal(300, 1000, (6, 8)).astype(np.float32)
    assert torch.equal(read(encode(array, "TIFF"), mode="grey")[0], torch.from_numpy(array))


def test_float_that_is_not_finite_is_an_error():
    array = np.zeros((6, 8), dtype=np.float32)
    array[1, 2] = np.nan
    with pytest.raises(DataError, match=r"(?s)aren't finite.*picture.png.*1 NaN"):
        read(encode(array, "TIFF"))


def test_sixteen_bit_colour_is_an_error_and_not_clipped():
    row = struct.pack(">6H", 1, 256, 65535, 7, 8, 9)
    for data, kind in ((png(2, 1, 16, 2, [row]), "RGB;16B"), (png(3, 1, 16, 4, [row]), "LA;16B")):
        with pytest.raises(DataError, match=rf"(?s)more than 8 bits.*picture.png.*{kind}.*to fix"):
            read(data)
    with pytest.raises(DataError, match=r"(?s)more than 8 bits.*values up to 65535"):
        read(b"P6 1 1 65535 " + struct.pack(">3H", 1, 2, 3))


def test_32_bit_integers_are_an_error():
    with pytest.raises(DataError, match=r"(?s)can't be read as an image's.*32-bit|signed"):
        read(encode(np.zeros((6, 8), dtype=np.int32), "TIFF"))


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow was built without JPEG 2000")
def test_jpeg_2000_depths():
    array = colours()
    data = encode(array, "JPEG2000", irreversible=False)
    assert torch.equal(read(data), chw(array))
    start = data.index(b"\xff\x4f\xff\x51")
    deep = data[: start + 42] + bytes([15]) + data[start + 43 :]
    with pytest.raises(DataError, match=r"(?s)more than 8 bits.*16 bits"):
        read(deep)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow was built without AVIF")
def test_avif_depths():
    data = encode(colours(32, 32), "AVIF")
    assert read(data).shape == (3, 32, 32)
    deep = bytearray(data)
    deep[data.index(b"av1C") + 6] |= 0x40
    depths = data.index(b"pixi") + 9
    deep[depths : depths + 3] = bytes([10, 10, 10])
    with pytest.raises(DataError, match=r"(?s)more than 8 bits.*10 or 12 bits"):
        read(bytes(deep))


def test_exif_rotation_is_undone():
    array, exif = colours(), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    signal = read(encode(array, "PNG", exif=exif))
    assert torch.equal(signal, chw(np.rot90(array, -1)))


def test_a_large_rotated_jpeg_is_upright_after_resizing():
    array, exif = np.zeros((80, 160, 3), dtype=np.uint8), Image.Exif()
    array[:, :80] = 255  # the left half is white; turned clockwise, the upper one
    exif[0x0112] = 6
    signal = read(encode(array, "JPEG", exif=exif), size=[20, 10])
    assert (signal[:, :9] > 250).all()
    assert (signal[:, 11:] < 5).all()


def test_a_tiff_of_pages_is_an_error_and_an_animation_gives_its_first_frame():
    frames = [Image.fromarray(colours()), Image.fromarray(255 - colours())]
    with pytest.raises(DataError, match=r"(?s)several pages.*2 pages"):
        read(encode(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    first = frames[0].quantize(8)
    animated = encode(first, "GIF", save_all=True, append_images=[frames[1].quantize(8)])
    assert torch.equal(read(animated), chw(np.array(first.convert("RGB"))))


@pytest.mark.parametrize("size", [4, [4, 6], 20])
@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_files_of_any_size_come_out_as_one(size, form):
    shape = (size, size) if isinstance(size, int) else tuple(size)
    for height, width in ((6, 8), (100, 7), (64, 64), (1, 1)):
        assert read(encode(colours(height, width), form), size=size).shape == (3, *shape)


def test_the_centre_is_kept():
    array = np.zeros((10, 30, 3), dtype=np.uint8)
    array[:, 10:20] = 255
    assert (read(encode(array), size=10) == 255).all()


def test_without_a_size_images_must_agree():
    settings = ImageFileSettings(name="test", size=None)
    form = find_form(io.BytesIO(encode(colours(6, 8))), "first.png", settings)
    with pytest.raises(DataError, match=r"(?s)differ in size.*second.png.*6 x 8.*got: 8 x 6.*data.size"):
        decode(io.BytesIO(encode(colours(8, 6))), "second.png", form, settings)


def test_deeper_images_among_8_bit_ones_are_an_error_unless_all_become_float():
    eight, sixteen = encode(colours()[:, :, 0]), encode(np.full((6, 8), 65535, dtype=np.uint16))
    settings = ImageFileSettings(name="test", mode="grey", size=None)
    form = find_form(io.BytesIO(eight), "first.png", settings)
    with pytest.raises(DataError, match=r"(?s)more than 8 bits.*second.png.*dtype=float32"):
        decode(io.BytesIO(sixteen), "second.png", form, settings)
    assert read(eight, mode="grey", dtype="float32").max() <= 1
    assert (read(sixteen, mode="grey", dtype="float32") == 1).all()


def test_rgba_of_16_bits_is_an_error():
    with pytest.raises(DataError, match="no transparency"):
        read(encode(np.zeros((6, 8), dtype=np.uint16)), mode="rgba")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_a_truncated_image_is_an_error_and_the_global_flag_stays(form, share):
    options = {"quality": 95} if form == "JPEG" else {}
    data = encode(colours(64, 64), form, **options)
    with pytest.raises(DataError, match=r"(?s)picture.png"):
        read(data[: int(len(data) * share)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("data", [b"", b"these are words, not pixels\n" * 9, b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(500)])
def test_what_is_no_image_is_an_error_that_names_it(data):
    with pytest.raises(DataError, match=r"(?s)isn't an image.*notes/words.png"):
        read(data, "notes/words.png")


def test_a_bomb_is_refused_by_what_it_declares():
    bomb = png(30_000, 30_000, 8, 2, [])
    with pytest.raises(DataError, match=r"(?s)too many pixels.*picture.png"):
        read(bomb, max_pixels=1000)
    with pytest.raises(DataError, match=r"(?s)too many pixels.*picture.png"):
        read(bomb)
    with pytest.raises(DataError, match=r"6 x 8|8 x 6"):
        read(encode(colours()), max_pixels=47)
    assert read(encode(colours()), max_pixels=48).shape == (3, 6, 8)
