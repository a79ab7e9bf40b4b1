"""What OME-XML says of a file's images: channel names and significant bits.

The text comes from a stranger's file, so nothing in it is followed: no document type, no entities, no other files.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from maskedmodel.errors import DataError


@dataclass(frozen=True)
class OmeImage:
    """One image of a file.

    names  of its channels, None where one has none. A channel of several samples, such as red, green and blue, stands
           as many times, as the file's axes count them.
    bits   how many of an integer's bits are used, where it says so.
    """

    names: tuple[str | None, ...]
    bits: int | None


def parse_ome(xml: str, where: str) -> list[OmeImage]:
    """The images, in order. Raises DataError on text that isn't OME-XML or isn't safe, and on images in other files."""
    if re.search(r"<!\s*(DOCTYPE|ENTITY)", xml, re.IGNORECASE):
        raise DataError(
            "The OME-XML declares a document type or entities, which it has no need of.",
            where=where,
            fix="Save the file anew with a program you trust.",
        )
    try:
        root = ET.fromstring(xml)
    except ET.ParseError as error:
        raise DataError("The OME-XML can't be read.", where=where, got=error) from error
    own = root.get("UUID")
    for element in root.iter():
        kind = _kind(element)
        if kind == "BinaryOnly" or (kind == "UUID" and element.get("FileName") and (element.text or "").strip() != own):
            name = element.get("FileName") or element.get("MetadataFile")
            raise DataError(
                "The OME-TIFF is one of a set: planes or metadata lie in other files.",
                where=where,
                expected="all planes and metadata in the file itself",
                got=name,
                fix="Save the set as one file per field.",
            )
    return [_image(element) for element in root if _kind(element) == "Image"]


def _kind(element: ET.Element) -> str:
    """The name of an element without its namespace, which changes with the version of the schema."""
    return element.tag.rpartition("}")[2]


def _image(image: ET.Element) -> OmeImage:
    names: list[str | None] = []
    bits = None
    for pixels in (child for child in image if _kind(child) == "Pixels"):
        bits = _number(pixels.get("SignificantBits"))
        for channel in (child for child in pixels if _kind(child) == "Channel"):
            name = (channel.get("Name") or "").strip() or None
            samples = min(_number(channel.get("SamplesPerPixel")) or 1, 64)
            names += [name] if samples == 1 else [name and f"{name} {sample}" for sample in range(samples)]
    return OmeImage(tuple(names), bits)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None
