"""One clip out of a folder of image files, or a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel_video.places import choose, fill
from maskedmodel_video.settings import VideoFolderSettings

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM")
_EIGHT_BIT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")
_PILLOW_MODE = {"grey": "L", "rgb": "RGB"}


def read_frames(
    opened: Callable[[int], tuple[BinaryIO, str]],
    count: int,
    settings: VideoFolderSettings,
    clip: int = 0,
    clips: int = 1,
) -> Tensor:
    """Clip number `clip` of `clips` evenly spread over `count` images in their order: (C, T, H, W) uint8.

    `opened` gives the bytes of an image, and what errors call it. `rate` has no meaning here. Raises DataError.
    """
    counted = settings.model_copy(update={"rate": None})
    numbers = choose([float(number) for number in range(count)], counted, clip, clips)
    found = {number: _picture(*opened(number), settings) for number in sorted(set(numbers))}
    return torch.from_numpy(np.stack(fill([found[number] for number in numbers], settings.frames), 1))


def _picture(stream: BinaryIO, name: str, settings: VideoFolderSettings) -> np.ndarray[Any, Any]:
    """(C, H, W) uint8: upright, the short side resized, the centre kept."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    height, width = settings.frame_size
    try:
        with stream, Image.open(stream, formats=_FORMATS) as image:
            if image.mode not in _EIGHT_BIT:
                raise DataError(
                    "The frame holds more than 8 bits per value.",
                    where=name,
                    expected="8-bit images",
                    got=f"mode {image.mode}",
                    fix="Convert the frames to 8 bits.",
                )
            frame = ImageOps.exif_transpose(image).convert(_PILLOW_MODE[settings.mode])
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError) as error:
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
