"""One clip out of a folder of image files, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from maskedmodel.errors import DataError
from maskedmodel.sources import PARSER_ERRORS
from maskedmodel_video.clip import ALPHA_NOTE, MIRRORED_NOTE, Clip, Notes, Pixels, check_pixels, stacked
from maskedmodel_video.frame_choice import choose
from maskedmodel_video.settings import VideoFolderSettings

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")
_BITS, _SAMPLE_FORMAT, _ORIENTATION = 258, 339, 274  # tags of TIFF, the last one of EXIF, too
_PILLOW_MODE = {"grey": "L", "rgb": "RGB"}


def read_frames(
    opened: Callable[[int], tuple[BinaryIO, str]],
    count: int,
    settings: VideoFolderSettings,
    clip: int = 0,
    clips: int = 1,
) -> Clip:
    """Clip number `clip` of `clips` evenly spread over `count` images in their order.

    `opened` gives the bytes of an image, and what errors call it. `rate` has no meaning here. Raises DataError.
    """
    counted = settings.model_copy(update={"rate": None})
    numbers = choose([float(number) for number in range(count)], counted, clip, clips)
    notes = Notes()
    found = {number: _picture(*opened(number), settings, notes) for number in sorted(set(numbers))}
    return stacked([found[number] for number in numbers], settings, notes)


def _picture(stream: BinaryIO, name: str, settings: VideoFolderSettings, notes: Notes) -> Pixels:
    """(C, H, W) uint8: upright, the short side resized, the centre kept."""
    from PIL import Image, ImageOps

    height, width = settings.frame_size
    broken: tuple[type[Exception], ...] = (*PARSER_ERRORS, Image.DecompressionBombError)
    try:
        with stream, Image.open(stream, formats=_FORMATS) as image:
            check_pixels(image.width, image.height, name, settings)
            _check_bits(image, name)
            _note(image, notes)
            frame = ImageOps.exif_transpose(image).convert(_PILLOW_MODE[settings.mode])
    except broken as error:
        raise DataError(
            "The frame isn't an image that can be read.",
            where=name,
            expected=", ".join(_FORMATS),
            got=f"{type(error).__name__}: {error}",
            fix="Remove the file or replace it, or let the run skip broken samples.",
        ) from error
    step = min(frame.width / width, frame.height / height)  # image pixels per pixel
    span_w, span_h = min(step * width, frame.width), min(step * height, frame.height)
    left, top = (frame.width - span_w) / 2, (frame.height - span_h) / 2
    box = (left, top, left + span_w, top + span_h)
    pixels = np.asarray(frame.resize((width, height), Image.Resampling.BILINEAR, box=box))
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_bits(image: Image, name: str) -> None:
    """Raises DataError on values of more than 8 bits, and on signed ones, by the tags where there are any."""
    tags = getattr(image, "tag_v2", {})
    bits, kinds = tags.get(_BITS, (8,)), tags.get(_SAMPLE_FORMAT, (1,))
    if image.mode not in _EIGHT_BIT or max(bits) > 8 or max(kinds) > 1:
        raise DataError(
            "The frame holds more than 8 bits per value.",
            where=name,
            expected="8-bit images",
            got=f"mode {image.mode}, {max(bits)} bits, sample format {max(kinds)}",
            fix="Convert the frames to 8 bits.",
        )


def _note(image: Image, notes: Notes) -> None:
    """Notes of what is converted or left out of an image."""
    if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        notes.add(MIRRORED_NOTE)
    if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
        notes.add(ALPHA_NOTE)
    if image.mode == "CMYK":
        notes.add("CMYK made RGB")
    if getattr(image, "is_animated", False):
        notes.add("further pictures of an image file left out")
