"""Whether a video file is cut off, by what its container says of its own length. Nothing is decoded.

MP4 and MOV, Matroska and WebM, AVI, WMV, FLV, Ogg, GIF and MPEG transport streams say so; other MPEG streams don't.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from typing import BinaryIO

_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"sidx", b"moof")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_SEGMENT = b"\x18\x53\x80\x67"
_PACKET = 188  # bytes of a transport stream's
_MOST = 1 << 21  # parts of a file that are looked at: FLV has one for each frame and each stretch of sound
_TAIL = 1 << 17  # bytes in which an Ogg's last page lies


def missing_end(stream: BinaryIO) -> str:
    """What is missing at the end of the file, empty where nothing is known to be."""
    end = stream.seek(0, os.SEEK_END)
    head = _at(stream, 0, 64)
    for matches, looked in _KINDS:
        if matches(head):
            return looked(stream, head, end)
    return ""


def _at(stream: BinaryIO, place: int, count: int) -> bytes:
    stream.seek(place)
    return stream.read(count)


def _boxes(stream: BinaryIO, head: bytes, end: int) -> str:
    at = 0
    for _ in range(_MOST):
        if at + 8 > end:
            break
        size, name = struct.unpack(">I4s", _at(stream, at, 8))
        if size == 1:
            size = int.from_bytes(_at(stream, at + 8, 8), "big")
        if size == 0 or not name.isascii():  # to the end of the file, or filling
            return ""
        if size < 8:
            return ""
        if at + size > end:
            return f"{end - at:,} of {size:,} bytes of the box {name.decode()!r} are there"
        at += size
    return ""


def _matroska(stream: BinaryIO, head: bytes, end: int) -> str:
    length, size = _vint(head[4:])
    at = 4 + length + size
    segment = _at(stream, at, 12)
    if not segment.startswith(_SEGMENT) or len(segment) < 12:
        return "it ends before its segment" if len(segment) < 12 else ""
    length, size = _vint(segment[4:])
    there = end - at - 4 - length
    if size == (1 << 7 * length) - 1 or there >= size:  # all ones: not known when it was written
        return ""
    return f"{there:,} of {size:,} bytes of its segment are there"


def _vint(content: bytes) -> tuple[int, int]:
    """How many bytes a number of EBML takes, and the number."""
    length = max(9 - content[0].bit_length(), 1) if content and content[0] else 8
    return length, int.from_bytes(content[:length], "big") & (1 << 7 * length) - 1


def _avi(stream: BinaryIO, head: bytes, end: int) -> str:
    at = 0
    for _ in range(_MOST):
        if at + 8 > end:
            break
        name, size = struct.unpack("<4sI", _at(stream, at, 8))
        if name != b"RIFF" or size == 0:  # zero: its recording wasn't finished, which decoders mend
            return ""
        if at + 8 + size > end:
            return f"{end - at - 8:,} of {size:,} bytes are there"
        at += 8 + size + size % 2
    return ""


def _asf(stream: BinaryIO, head: bytes, end: int) -> str:
    header = _at(stream, 0, min(struct.unpack("<Q", head[16:24])[0], 1 << 20)) if len(head) > 24 else b""
    at = header.find(_ASF_FILE)
    if at < 0 or len(header) < at + 92:
        return ""
    size, flags = struct.unpack("<Q", header[at + 40 : at + 48])[0], struct.unpack("<I", header[at + 88 : at + 92])[0]
    return "" if flags & 1 or size <= end else f"{end:,} of {size:,} bytes are there"  # 1: a broadcast, of no length


def _flv(stream: BinaryIO, head: bytes, end: int) -> str:
    at = int.from_bytes(head[5:9], "big") + 4
    for _ in range(_MOST):
        if at + 11 > end:
            break
        tag = _at(stream, at, 4)
        if tag[0] & 0x1F not in (8, 9, 18):
            return ""
        at += 15 + int.from_bytes(tag[1:4], "big")
    return "its last tag isn't whole" if at > end or 0 < end - at < 11 else ""


def _ogg(stream: BinaryIO, head: bytes, end: int) -> str:
    tail = _at(stream, max(end - _TAIL, 0), _TAIL)
    at = tail.rfind(b"OggS")
    if at < 0 or len(tail) < at + 27:
        return "its last page isn't whole"
    segments = tail[at + 27 : at + 27 + tail[at + 26]]
    if len(tail) < at + 27 + len(segments) + sum(segments) or len(segments) < tail[at + 26]:
        return "its last page isn't whole"
    return "" if tail[at + 5] & 4 else "its last page doesn't say that it is the last"


def _gif(stream: BinaryIO, head: bytes, end: int) -> str:
    return "" if _at(stream, max(end - 64, 0), 64).rstrip(b"\0").endswith(b";") else "its trailer is missing"


def _transport(stream: BinaryIO, head: bytes, end: int) -> str:
    return "" if end % _PACKET == 0 else "its last packet isn't whole"


_KINDS: tuple[tuple[Callable[[bytes], bool], Callable[[BinaryIO, bytes, int], str]], ...] = (
    (lambda head: head[4:8] in _BOXES, _boxes),
    (lambda head: head.startswith(b"\x1a\x45\xdf\xa3"), _matroska),
    (lambda head: head.startswith(b"RIFF") and head[8:12] == b"AVI ", _avi),
    (lambda head: head.startswith(_ASF), _asf),
    (lambda head: head.startswith(b"FLV\x01"), _flv),
    (lambda head: head.startswith(b"OggS"), _ogg),
    (lambda head: head.startswith((b"GIF87a", b"GIF89a")), _gif),
    (lambda head: head[:1] == b"\x47" and len(head) == 64, _transport),
)
