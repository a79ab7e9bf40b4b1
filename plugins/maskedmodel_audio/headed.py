"""Sound behind one header that counts it: AU and NIST Sphere."""

from __future__ import annotations

import struct
from typing import BinaryIO

from maskedmodel_audio.chunked import OPEN_NOTE, refuse_rest
from maskedmodel_audio.pieces import Piece, Survey, contradiction, read_at

# Bits of a value, by the number that an AU file has for its encoding.
_AU_BITS = {1: 8, 2: 8, 3: 16, 4: 24, 5: 32, 6: 32, 7: 64, 27: 8}
_AU_OPEN = 0xFFFFFFFF


def _au(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    head = read_at(stream, start, 24)
    if len(head) < 24:
        return [Piece(start, end, None, missing="it ends within its header")]
    place, size, encoding, _, channels = struct.unpack("<5I" if head[:4] == b"dns." else ">5I", head[4:24])
    block = channels * _AU_BITS.get(encoding, 0) // 8
    if size == _AU_OPEN:
        count = max(end - start - place, 0) // block if block else None
        return [Piece(start, end, count, notes=(OPEN_NOTE,))]
    return _counted(stream, start, end, name, place, size, size // block if block else None)


def _sphere(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    lines = read_at(stream, start, 1024).decode("ascii", "replace").split("\n")
    fields = dict(line.split()[::2] for line in lines if len(line.split()) == 3)
    try:
        place = int(lines[1])
        count, channels, width = (int(fields[key]) for key in ("sample_count", "channel_count", "sample_n_bytes"))
    except (KeyError, ValueError, IndexError) as error:
        raise contradiction(
            "The sound file's header is damaged.",
            name,
            "sample_count, channel_count and sample_n_bytes",
            f"{type(error).__name__}: {error}",
        ) from error
    if min(place, count, channels, width) < 0:
        raise contradiction("The sound file's header is damaged.", name, "no negative numbers", f"{count} samples")
    return _counted(stream, start, end, name, place, count * channels * width, count)


def _counted(
    stream: BinaryIO, start: int, end: int, name: str, place: int, size: int, count: int | None
) -> list[Piece]:
    """The piece of `size` bytes of samples from `place` on, a place in the file that begins at `start`."""
    there = max(end - start - place, 0)
    if size > there:
        return [Piece(start, end, count, missing=f"{there:,} of {size:,} bytes of samples are there")]
    refuse_rest(stream, start + place + size, end, name)
    return [Piece(start, end, count)]


SURVEYS: dict[bytes, Survey] = {b".snd": _au, b"dns.": _au, b"NIST_1A": _sphere}
