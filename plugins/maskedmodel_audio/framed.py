"""Sound in frames or pages that follow each other: FLAC, Ogg and MP3."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from maskedmodel_audio.pieces import Piece, Survey, contradiction, read_at

_FLAC_HEAD = b"fLaC\x00\x00\x00\x22"  # its first block, STREAMINFO, is always 34 bytes long
_TAG, _APE = 128, 32  # bytes of an ID3v1 tag, and of the foot of an APE tag


def without_tags(content: bytes) -> int:
    """Where the tags begin that music players put behind a file's sound; its length where there are none."""
    stop = len(content)
    if content[max(stop - _TAG, 0) : stop].startswith(b"TAG"):
        stop -= _TAG
    foot = content[max(stop - _APE, 0) : stop]
    if foot.startswith(b"APETAGEX"):
        size, flags = struct.unpack("<I", foot[12:16])[0], struct.unpack("<I", foot[20:24])[0]
        stop = max(stop - size - (_APE if flags >> 31 else 0), 0)
    return stop


def _flac(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    """FLAC says its length in its first block, 0 where that wasn't known. Its frames carry checksums."""
    if not whole:
        return [_flac_piece(stream, start, end, False)]
    content = read_at(stream, 0, end)
    stop, starts = without_tags(content), []
    while 0 <= start < stop:
        starts.append(start)
        start = content.find(_FLAC_HEAD, start + 4)
    return [_flac_piece(stream, at, until, True) for at, until in zip(starts, [*starts[1:], stop], strict=True)]


def _flac_piece(stream: BinaryIO, start: int, stop: int, whole: bool) -> Piece:
    word = read_at(stream, start + 18, 8)
    if len(word) < 8:
        return Piece(start, stop, None, missing="it ends within its header")
    bits = int(struct.unpack(">Q", word)[0])
    count = bits & (1 << 36) - 1
    if not count:
        return Piece(start, stop, None, notes=("length not in the header: read to the end of the file",))
    # Told no length, the decoder goes on to the real end, and a header that counts too little is found out.
    patches = ((start + 18, struct.pack(">Q", bits >> 36 << 36)),) if whole else ()
    return Piece(start, stop, count, patches=patches, exact=whole)


@dataclass
class _Link:
    """One part of a chained Ogg file."""

    start: int
    heads: dict[int, bytes] = field(default_factory=dict)  # how each stream in it begins
    ends: dict[int, int] = field(default_factory=dict)  # its position at its last page
    pages: dict[int, int] = field(default_factory=dict)  # the number of its last page
    closed: set[int] = field(default_factory=set)  # streams whose last page says that it is the last
    lost: str = ""
    bodies: bool = False  # whether pages that begin no stream were seen


# Vorbis and Opus have 5.1 as left, centre, right, left behind, right behind, low frequencies: places in WAV's order.
_VORBIS_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
_OGG_CODECS = (b"\x01vorbis", b"OpusHead", b"\x7fFLAC", b"Speex   ")


def _ogg(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    """Ogg counts in each page how far its sound goes; the last page of a stream says that it is the last."""
    content = read_at(stream, 0, end)
    stop, links, at = without_tags(content), list[_Link](), start
    while at < stop:
        if content[at : at + 4] != b"OggS" or at + 27 > stop:
            if links:
                links[-1].lost = links[-1].lost or f"{stop - at} bytes at its end are no whole page"
            following = content.find(b"OggS", at + 1, stop)
            if following < 0:
                break
            if links:
                links[-1].lost = f"bytes {at} to {following} are no page"
            at = following
            continue
        flags, position, serial, number = struct.unpack_from("<BqII", content, at + 5)
        segments = content[at + 26]
        body = at + 27 + segments
        after = body + sum(content[at + 27 : body])
        if flags & 2 and (not links or links[-1].bodies):
            links.append(_Link(at))
        if not links:
            raise contradiction("The sound file is cut off.", name, "a page that begins a stream", "one that goes on")
        link = links[-1]
        if flags & 2:
            link.heads[serial] = content[body : min(after, body + 64)]
        else:
            link.bodies = True
            if serial in link.pages and number != link.pages[serial] + 1:
                link.lost = link.lost or f"pages {link.pages[serial] + 1} to {number - 1} are missing"
        link.pages[serial] = number
        if position >= 0:
            link.ends[serial] = position
        if flags & 4:
            link.closed.add(serial)
        if after > stop:
            link.lost = link.lost or "its last page isn't whole"
        at = after
    if not links:
        return [Piece(start, stop, None, missing="it ends within its first page")]
    ends = [*(link.start for link in links[1:]), stop]
    return [_ogg_piece(link, until) for link, until in zip(links, ends, strict=True)]


def _ogg_piece(link: _Link, stop: int) -> Piece:
    serial = next((key for key, head in link.heads.items() if head.startswith(_OGG_CODECS)), None)
    if serial is None:
        return Piece(link.start, stop, None, missing=link.lost)
    head, count = link.heads[serial], link.ends.get(serial, 0)
    clock, channels = 0, head[11] if head.startswith(_OGG_CODECS[0]) and len(head) > 11 else 0
    if head.startswith(b"OpusHead") and len(head) >= 19:
        clock, count = 48000, count - struct.unpack("<H", head[10:12])[0]
        channels = head[9] if head[18] == 1 else 0  # of other families the order isn't said
    missing = link.lost or ("" if serial in link.closed else "its last page doesn't say that it is the last")
    order = _VORBIS_ORDER.get(channels, ())
    return Piece(link.start, stop, max(count, 0), clock=clock, missing=missing, order=order)


SURVEYS: dict[bytes, Survey] = {b"fLaC": _flac, b"OggS": _ogg}
