"""One image file to one tensor, with the values it holds, or a clear error.

What becomes of each kind of file:

    8-bit grey, colour, palette, CMYK, YCbCr, 1-bit   uint8 in the wanted mode, through Pillow
    transparent                                       laid over white, as a viewer shows it; mode rgba keeps the alpha
    16-bit grey                                       float32, value / 65535; 12-bit TIFF, value / 4095
    TIFF in which 0 is white                          turned round, whatever its depth
    32- and 64-bit float                              float32, the value itself
    16-bit colour, 32-bit integers, other depths      DataError: Pillow would clip them to 8 bits in silence
    TIFF of signed integers, L*a*b*, uneven depths    DataError, by its tags
    EXIF-rotated                                      upright
    animation                                         its first frame; a TIFF of several pages is a DataError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import PARSER_ERRORS
from maskedmodel_image.tiff_tags import TiffValues, in_share, mend_order, read_tags

if TYPE_CHECKING:
    from PIL.Image import Image

# Formats whose depth is checked below. Named, because Pillow also knows some that start other programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".avif", ".jp2", ".j2k"),
)
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "La", "RGBA", "RGBa")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_PILLOW_MODE = {"grey": "L", "rgb": "RGB", "rgba": "RGBA"}
CHANNELS = {"grey": 1, "rgb": 3, "rgba": 4}

# Pillow itself warns above the first number and refuses above the second.
_USUAL_PIXELS, _MOST_PIXELS = 89_478_485, 178_956_970

Values = Literal["uint8", "float32"]


class ImageFileSettings(Settings):
    """What the sources of encoded images have in common."""

    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        256,
        description="Stored size in pixels, one number or [height, width]: the short side is resized to fit, the "
        "centre kept. null = as they are, which must then be one size.",
    )
    mode: Literal["grey", "rgb", "rgba"] = Field(
        "rgb", description="Channels of a sample: grey 1, rgb 3, rgba 4. grey and rgb lay transparent images on white."
    )
    dtype: Literal["auto", "uint8", "float32"] = Field(
        "auto",
        description="Type of the samples. uint8: 8-bit images only. float32: 8-bit as value / 255, 16-bit as value / "
        "65535, float as it is. auto: what the first readable image is.",
    )
    max_pixels: int = Field(
        _USUAL_PIXELS, gt=0, le=_MOST_PIXELS, description="Images that declare more pixels are refused undecoded."
    )
    cache: str | None = Field(
        None,
        description="Folder for the decoded images, one memory-mapped array per split: written once, read from then "
        "on, rebuilt when the data or these settings change. null = decode anew each time.",
    )
    memory: bool = Field(
        False, description="Whether all images are decoded once, into memory, when the data is opened."
    )

    @model_validator(mode="after")
    def _one_store(self) -> ImageFileSettings:
        if self.memory and self.cache is not None:
            raise ValueError("memory: true and a cache exclude each other; choose one")
        return self


@dataclass(frozen=True)
class Form:
    """What every image of a source comes out as: `shape` (C, H, W) and `dtype`."""

    shape: tuple[int, int, int]
    dtype: Values


def find_form(stream: BinaryIO, name: str, settings: ImageFileSettings) -> Form:
    """What the settings ask for, completed by one image's header. Raises DataError where it can't be read."""
    with reading(name):
        image, tags = open_image(stream, name, settings.max_pixels)
        height, width = upright_size(image, tags) if settings.size is None else (0, 0)
        wide = not _is_eight_bit(image)
    size = settings.size if settings.size is not None else (height, width)
    height, width = (size, size) if isinstance(size, int) else size
    dtype: Values = settings.dtype if settings.dtype != "auto" else "float32" if wide else "uint8"
    return Form((CHANNELS[settings.mode], height, width), dtype)


def decode(stream: BinaryIO, name: str, form: Form, settings: ImageFileSettings) -> Tensor:
    """The image in `stream`, a tensor of the given form. `name` stands in errors: DataError on whatever is wrong."""
    from PIL import ImageOps

    channels, height, width = form.shape
    with reading(name):
        image, tags = open_image(stream, name, settings.max_pixels)
        wide = not _is_eight_bit(image)
        if wide and form.dtype == "uint8":
            raise DataError(
                "The image holds more than 8 bits per value, the others 8.",
                where=name,
                expected="8-bit images, as dtype is uint8 or the first image was 8-bit",
                got=f"mode {image.mode}",
                fix="Set data.dtype=float32, which keeps the values of both.",
            )
        if settings.size is not None:
            # A JPEG may be shrunk while it is decoded. Both sides cover both extents, since EXIF may still turn it.
            image.draft(None, (max(height, width),) * 2)
        if tags.white is None and (image.mode in _SIXTEEN_BIT or (image.mode == "I" and image.format == "PPM")):
            tags = TiffValues(white=65535)
        image = ImageOps.exif_transpose(image)  # a new image, which doesn't know its format any more
        image = _as_float(image, tags, name) if wide else _in_mode(image, settings.mode)
        if settings.size is None and image.size != (width, height):
            raise DataError(
                "The images differ in size.",
                where=name,
                expected=f"{height} x {width} pixels, as the first",
                got=f"{image.height} x {image.width}",
                fix="Set data.size, to which all are resized and cropped.",
            )
        array = np.array(fitted(image, height, width))
    if wide:
        return _spread(torch.from_numpy(array), channels, name)
    pixels = torch.from_numpy(array.reshape(height, width, channels)).permute(2, 0, 1).contiguous()
    return pixels.float() / 255 if form.dtype == "float32" else pixels


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Turns what Pillow raises on a damaged file into a DataError that names it."""
    from PIL import Image, UnidentifiedImageError

    try:
        yield
    except UnidentifiedImageError as error:
        raise DataError(
            "The file isn't an image that can be read.",
            where=name,
            expected=", ".join(_FORMATS),
            fix="Remove the file or replace it, or let the run skip broken samples.",
        ) from error
    except Image.DecompressionBombError as error:
        raise _too_large(name, str(error)) from error
    except PARSER_ERRORS as error:
        raise DataError(
            "The image can't be decoded: it is truncated or damaged.",
            where=name,
            got=f"{type(error).__name__}: {error}",
            fix="Replace the file, or let the run skip broken samples.",
        ) from error


def _too_large(name: str, got: str) -> DataError:
    return DataError(
        "The image declares too many pixels and was not decoded.",
        where=name,
        expected="at most data.max_pixels",
        got=got,
        fix=f"If the file is to be trusted, raise data.max_pixels (up to {_MOST_PIXELS}), or shrink the file.",
    )


def open_image(stream: BinaryIO, name: str, max_pixels: int) -> tuple[Image, TiffValues]:
    """Read the header. Raises DataError where decoding would take too much or lose values."""
    from PIL import Image

    image = Image.open(stream, formats=_FORMATS)
    if image.width * image.height > max_pixels:
        raise _too_large(name, f"{image.width} x {image.height} = {image.width * image.height}, not {max_pixels}")
    pages = getattr(image, "n_frames", 1) if image.format == "TIFF" else 1
    if pages > 1:
        raise DataError(
            "The TIFF has several pages, of which only one would be read.",
            where=name,
            expected="1 page",
            got=f"{pages} pages",
            fix="Save its pages as files of their own.",
        )
    tags = TiffValues()
    if image.format == "TIFF":
        tags = read_tags(image, name)  # type: ignore[arg-type]
        mend_order(image)
    if image.mode in _EIGHT_BIT and (depth := _clipped(image, stream)):
        raise DataError(
            "The image has more than 8 bits per value, and its format is read with 8.",
            where=name,
            expected="8-bit values, 16-bit grey or 32-bit float grey",
            got=depth,
            fix="Convert it to 8 bits, or its channels to 16-bit grey files or an npy array (data source 'array').",
        )
    return image, tags


def upright_size(image: Image, tags: TiffValues) -> tuple[int, int]:
    """Height and width once it is upright. Pillow may have to decode a PNG to find out."""
    if image.format == "TIFF":  # newer versions of Pillow turn `size` before it is decoded, older ones after
        width, height = image.tag_v2[256], image.tag_v2[257]  # type: ignore[attr-defined]
        turned = tags.turned
    else:
        (width, height), turned = image.size, image.getexif().get(0x0112, 1) >= 5
    return (width, height) if turned else (height, width)


def _clipped(image: Image, stream: BinaryIO) -> str | None:
    """How deep the file is, where Pillow would give 8 of its bits without a word; else None."""
    raw = [part for tile in image.tile for part in (tile[3] if isinstance(tile[3], tuple) else (tile[3],))]  # type: ignore[attr-defined]
    for part in raw:
        if isinstance(part, str) and part.split(";")[-1].startswith(("16", "32")):  # PNG, TIFF: such as RGB;16B
            return f"raw mode {part}"
    if image.format == "PPM" and image.mode != "1" and isinstance(raw[-1], int) and raw[-1] > 255:
        return f"values up to {raw[-1]}"
    if image.format in ("JPEG2000", "AVIF"):
        place = stream.tell()
        stream.seek(0)
        head = stream.read(1 << 16)
        stream.seek(place)
        if (start := head.find(b"\xff\x4f\xff\x51")) >= 0:  # the SIZ marker, 40 bytes before the first depth
            bits = [(byte & 127) + 1 for byte in head[start + 42 : start + 43]]
            return f"{bits[0]} bits" if bits and bits[0] > 8 else None
        if (start := head.find(b"av1C")) >= 0 and head[start + 6] & 0x40:  # the flag high_bitdepth
            return "10 or 12 bits"
    return None


def _is_eight_bit(image: Image) -> bool:
    return image.mode in _EIGHT_BIT


def _in_mode(image: Image, mode: str) -> Image:
    """An 8-bit image in Pillow's L, RGB or RGBA."""
    from PIL import Image

    if image.mode == "La":
        image = image.convert("LA")
    if mode == "rgba":
        return image.convert("RGBA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if mode == "grey" and image.mode in ("1", "L"):
        return image.convert("L")
    return image.convert("RGB").convert(_PILLOW_MODE[mode])


def _as_float(image: Image, tags: TiffValues, name: str) -> Image:
    """An image in Pillow's F: integers divided by their full scale, float values as they are."""
    from PIL import Image

    if tags.white is not None:
        values = in_share(np.asarray(image), tags.white, tags.inverted)
    elif image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all():
            raise DataError(
                "The image holds values that aren't finite.",
                where=name,
                got=f"{int((~np.isfinite(values)).sum())} NaN or infinite values",
                fix="Fill them in or remove the file.",
            )
    else:
        raise DataError(
            "The image's kind of values isn't supported.",
            where=name,
            expected=f"8-bit ({', '.join(_EIGHT_BIT)}), 16-bit grey or 32-bit float grey",
            got=f"mode {image.mode}",
            fix="Convert it, or save its values as an npy array (data source 'array').",
        )
    return Image.fromarray(values)


def fitted(image: Image, height: int, width: int, smooth: bool = True) -> Image:
    """Resize until it covers (height, width), keeping the centre; untouched at its own size.

    Bicubic and antialiased where it is `smooth`; else each pixel is one that was there, as the classes of a mask need.
    """
    from PIL import Image

    if image.size == (width, height):
        return image
    (top, bottom), (left, right) = _covered((image.height, image.width), (height, width))
    how = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    return image.resize((width, height), how, box=(left, top, right, bottom))


def _covered(size: tuple[int, int], wanted: tuple[int, int]) -> list[tuple[float, float]]:
    """Which part of an image (height, width) is shown at a wanted size: along each axis where it begins and ends."""
    step = min(have / want for have, want in zip(size, wanted, strict=True))  # pixels of the image per pixel
    spans = [min(step * want, have) for have, want in zip(size, wanted, strict=True)]
    return [((have - span) / 2, (have - span) / 2 + span) for have, span in zip(size, spans, strict=True)]


def shown_box(size: tuple[int, int], form: Form) -> Tensor:
    """Which part of an upright image (height, width) a stored one of this form shows, (2, 2) float32."""
    return torch.tensor(_covered(size, (form.shape[1], form.shape[2])), dtype=torch.float32)


def _spread(grey: Tensor, channels: int, name: str) -> Tensor:
    """A grey image (H, W) as (C, H, W), the same in every channel."""
    if channels == 4:
        raise DataError(
            "A 16-bit or float image has no transparency.", where=name, expected="mode: grey or rgb", got="mode: rgba"
        )
    return grey.float().expand(channels, -1, -1).contiguous()
