"""What a folder of images was taken for, by the headers of some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from maskedmodel import Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import EncodedFiles, looked_at, spread, tally
from maskedmodel_image.decode import ImageFileSettings, open_image, reading, upright_size

_LOOKED_AT = 64  # files: opening one takes less than a millisecond


class _Header(NamedTuple):
    kind: str
    size: str
    converted: tuple[str, ...]


def facts_of(images: EncodedFiles, chosen: Sequence[int], settings: ImageFileSettings) -> list[Fact]:
    """Formats, sizes and what is converted, of up to 64 images, evenly spread."""
    some = spread(chosen, _LOOKED_AT)
    of = looked_at(len(some), len(chosen), "images")
    headers, broken = list[_Header](), 0
    for number in some:
        try:
            with images.open(number) as stream, reading(images.name(number)):
                headers.append(_header(stream, images.name(number), settings))
        except DataError:
            broken += 1
    found = []
    if headers:
        found.append(Fact("images", f"{of}: {tally(header.kind for header in headers)}"))
        found.append(Fact("size", f"{of}: {tally(header.size for header in headers)}"))
    for text, count in Counter(text for header in headers for text in header.converted).items():
        found.append(Fact("images", f"{of}, {count} {text}", notice=True))
    if broken:
        found.append(Fact("images", f"{of}, {broken} can't be opened", notice=True))
    return found


def _header(stream: BinaryIO, name: str, settings: ImageFileSettings) -> _Header:
    image, tags = open_image(stream, name, settings.max_pixels)
    # Of a PNG whose orientation may stand behind its pixels nothing is said: it would have to be decoded.
    known = image.format != "PNG" or "exif" in image.info
    height, width = upright_size(image, tags) if known else (image.height, image.width)
    converted = []
    if image.has_transparency_data and settings.mode != "rgba":
        converted.append("are transparent: laid over white")
    if image.mode == "CMYK":
        converted.append("are CMYK, made RGB without a colour profile")
    if (height, width) != (image.height, image.width) and image.format != "TIFF":
        converted.append("are turned upright")
    if image.format != "TIFF" and getattr(image, "n_frames", 1) > 1:
        converted.append("are animations, of which the first picture is read")
    if settings.mode == "grey" and image.mode not in ("1", "L", "LA", "La", "F", "I") and image.mode[:2] != "I;":
        converted.append("have colours, made grey")
    if tags.left_out:
        converted.append(f"hold samples that their tags say nothing of ({tags.left_out} a pixel): left out")
    if tags.inverted or (image.format == "TIFF" and image.tag_v2.get(262) == 0):  # type: ignore[attr-defined]
        converted.append("have 0 for white: turned round")
    return _Header(f"{image.format} {image.mode}", f"{height} x {width}", tuple(converted))
