"""Sound in chunks, each with a name and a size: WAV in all its sizes, AIFF, CAF."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from typing import BinaryIO

from maskedmodel_audio.pieces import Piece, Survey, contradiction, read_at

# Sizes that writers to a pipe leave in a header, as they can't come back to it: ffmpeg, sox, arecord, and others.
_LEFT_OPEN = (0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
_NEAR = 256  # bytes of headers that some take off such a size
OPEN_NOTE = "length left open in the header: read to the end of the file"
_PLAIN = (1, 3, 6, 7)  # WAV formats of one value after another: integers, floating point, A-law, mu-law
_BLOCKED = (0x02, 0x11, 0x31)  # WAV formats that say how many samples a block holds: ADPCM of two kinds, GSM
_EXTENSIBLE = 0xFFFE
_BLOCK = 4096  # samples to which a codec's last block may be filled up, where the header doesn't say
_MOST_CHANNELS, _MOST_CHUNKS = 1024, 1 << 14

_RIFF = (b"RIFF", b"RIFX", b"RF64", b"BW64")
_W64 = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
_IFF = (b"FORM",)
_AIFC_INTEGERS = (b"none", b"twos", b"sowt", b"raw ")  # as many bytes as their bits need
_AIFC_BYTES = {b"in24": 3, b"in32": 4, b"fl32": 4, b"fl64": 8, b"ulaw": 1, b"alaw": 1}
# ALAC has the centre first and low frequencies last: places in WAV's order.
_ALAC_ORDER = {3: (1, 2, 0), 4: (1, 2, 0, 3), 5: (1, 2, 0, 3, 4), 6: (1, 2, 0, 5, 3, 4)}
_TAGS = (b"TAG", b"ID3", b"APETAGEX")  # of music players, put behind any kind of file


@dataclass(frozen=True)
class _Layout:
    """How a family writes a chunk's head: its name, then its size."""

    order: str  # of bytes, as struct has it
    sound: bytes  # the name of the chunk that holds the samples
    joined: tuple[bytes, ...]  # what another file of the family begins with
    start: int = 12  # bytes before the first chunk
    name: int = 4  # bytes of a name, of which four tell
    size: str = "I"
    pad: int = 2  # chunks begin at a multiple of it
    head_counts: bool = False  # whether the size counts name and size, too

    @property
    def head(self) -> int:
        return self.name + struct.calcsize(self.order + self.size)

    def said(self, head: bytes) -> int:
        """The size of a chunk's body."""
        size = int(struct.unpack(self.order + self.size, head[self.name : self.head])[0])
        return max(size - self.head, 0) if self.head_counts else size


@dataclass
class _Found:
    """The chunks of one file: place and size of their bodies, and of the samples where their size is written."""

    bodies: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    size_at: int = 0
    size_code: str = ""
    open: bool = False  # whether the size of the samples was left open
    stop: int = 0  # where the file ends


def _is_name(head: bytes) -> bool:
    return len(head) >= 4 and all(32 <= byte < 127 for byte in head[:4]) and head[:4].strip() != b""


def _walk(stream: BinaryIO, start: int, end: int, name: str, layout: _Layout) -> _Found:
    """The chunks from `start` to the end of the file, or to where another file begins."""
    found, at, behind = _Found(stop=end), start + layout.start, False
    for _ in range(_MOST_CHUNKS):
        if at >= end:
            return found
        head = read_at(stream, at, layout.head)
        if behind and head.startswith((*layout.joined, *_TAGS)):
            found.stop = at
            return found
        if not _is_name(head):
            if behind:
                found.stop = at
                refuse_rest(stream, at, end, name)
            elif len(head) == layout.head:
                raise contradiction("The sound file is damaged.", name, "a chunk with a name", f"{head!r} at byte {at}")
            return found
        if len(head) < layout.head:
            return found
        body, size = at + layout.head, layout.said(head)
        if head[:4] == layout.sound:
            if behind:
                raise contradiction("The sound file holds two chunks of samples.", name, "one", f"another at byte {at}")
            behind = True
            found.size_at, found.size_code = at + layout.name, layout.order + layout.size
            if size == 0xFFFFFFFF and b"ds64" in found.bodies:
                found.size_at, found.size_code = found.bodies[b"ds64"][0] + 8, "<Q"
                size = int(struct.unpack("<Q", read_at(stream, found.size_at, 8).ljust(8, b"\0"))[0])
            found.open = _left_open(size, end - body) and not (size == 0 and _chunks_fill(stream, body, end, layout))
        found.bodies.setdefault(head[:4], (body, size))
        if found.open or body + size > end:
            return found
        at = _next(stream, body + size, start, end, layout)
    raise contradiction("The sound file is damaged.", name, f"at most {_MOST_CHUNKS:,} chunks", "more")


def _left_open(size: int, there: int) -> bool:
    """Whether a size is none, but what a writer to a pipe leaves."""
    if size == 0:
        return there > 0
    return size > there and any(0 <= place - size < _NEAR for place in _LEFT_OPEN)


def _next(stream: BinaryIO, at: int, start: int, end: int, layout: _Layout) -> int:
    """Where the next chunk begins: chunks are filled up to a multiple of `pad`, which some writers forget."""
    filled = at + -(at - start) % layout.pad
    if filled != at and filled < end and not _is_name(read_at(stream, filled, 4)) and _is_name(read_at(stream, at, 4)):
        return at
    return filled


def _chunks_fill(stream: BinaryIO, at: int, end: int, layout: _Layout) -> bool:
    """Whether whole chunks and nothing else follow: then a size of zero is meant."""
    for _ in range(_MOST_CHUNKS):
        if at >= end:
            return at <= end + layout.pad
        head = read_at(stream, at, layout.head)
        if len(head) < layout.head or not _is_name(head):
            return False
        at += layout.head + layout.said(head)
        at += -at % layout.pad
    return False


def refuse_rest(stream: BinaryIO, at: int, end: int, name: str) -> None:
    """Raises DataError where what comes behind the samples is no filling: then the header counts too little."""
    place = at
    while place < end and end - at > 2:
        block = read_at(stream, place, 1 << 16)
        if any(block):
            raise contradiction(
                "The sound file holds more than its header counts.",
                name,
                "nothing but named chunks behind the samples",
                f"{end - at} other bytes",
            )
        place += max(len(block), 1)


def _wav(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    """RIFF, RIFX (big endian), RF64 and BW64 (64-bit sizes)."""
    magic = read_at(stream, start, 12)
    if magic[8:12] != b"WAVE":
        raise contradiction("The file is no sound file.", name, "WAVE", f"a RIFF file of the kind {magic[8:12]!r}")
    layout = _Layout(">" if magic[:4] == b"RIFX" else "<", b"data", _RIFF)
    return _waves(stream, start, end, name, layout)


def _wave64(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    """Sony's W64: names of 16 bytes, sizes of 8."""
    layout = _Layout("<", b"data", (_W64,), start=40, name=16, size="Q", pad=8, head_counts=True)
    return _waves(stream, start, end, name, layout)


def _waves(stream: BinaryIO, start: int, end: int, name: str, layout: _Layout) -> list[Piece]:
    found = _walk(stream, start, end, name, layout)
    form, count, slack = b"", None, 0
    if b"fmt " in found.bodies:
        form = read_at(stream, found.bodies[b"fmt "][0], min(found.bodies[b"fmt "][1], 40))
    if len(form) >= 16 and b"data" in found.bodies:
        size = end - found.bodies[b"data"][0] if found.open else found.bodies[b"data"][1]
        fact = b""
        if b"fact" in found.bodies:
            fact = read_at(stream, found.bodies[b"fact"][0], 4)
        count, slack = _wave_count(form, fact, size, layout, name)
        if found.open and slack:
            count = None  # the count in `fact` was left open, too
    elif b"data" in found.bodies:
        raise contradiction("The sound file's header is damaged.", name, "a chunk 'fmt ' of 16 bytes or more", form)
    piece = _piece(stream, start, end, found, layout, count, slack)
    follows = read_at(stream, found.stop, 16).startswith(layout.joined)
    return [piece, *(pieces_behind(stream, found.stop, end, name) if follows else ())]


def pieces_behind(stream: BinaryIO, at: int, end: int, name: str) -> list[Piece]:
    """The pieces from a place in the file on, at which a head is known to stand."""
    head = read_at(stream, at, 16)
    survey = next(survey for magic, survey in SURVEYS.items() if head.startswith(magic))
    return survey(stream, at, end, name, True)


def _piece(
    stream: BinaryIO, start: int, end: int, found: _Found, layout: _Layout, count: int | None, slack: int
) -> Piece:
    """The piece with what is missing of its samples, or with their length where it was left open."""
    if layout.sound not in found.bodies:
        return Piece(start, end, None, missing="it ends before its samples")
    place, size = found.bodies[layout.sound]
    there = end - place
    if found.open:
        real = there + (layout.head if layout.head_counts else 0)
        most = (1 << 8 * struct.calcsize(found.size_code)) - 1
        patch = (found.size_at, struct.pack(found.size_code, min(real, most)))
        return Piece(start, end, count, slack, slack > 0, patches=(patch,), notes=(OPEN_NOTE,))
    missing = f"{there:,} of {size:,} bytes of samples are there" if size > there else ""
    return Piece(start, found.stop, count, slack, slack > 0, missing=missing)


def _wave_count(form: bytes, fact: bytes, size: int, layout: _Layout, name: str) -> tuple[int | None, int]:
    """How many samples `size` bytes are, and by how many the decoder may differ."""
    kind, channels, _, _, align, bits = struct.unpack(layout.order + "HHIIHH", form[:16])
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack(layout.order + "H", form[24:26])[0]
    block = channels * -(-bits // 8)
    if kind in _PLAIN and 0 < channels <= _MOST_CHANNELS and block:
        if align not in (0, block):
            raise contradiction(
                "The sound file's header contradicts itself.",
                name,
                f"a block align of {block} bytes: {channels} channels of {bits} bits",
                align,
            )
        return size // block, 0
    said = struct.unpack(layout.order + "I", fact)[0] if len(fact) == 4 else None
    each = struct.unpack(layout.order + "H", form[18:20])[0] if kind in _BLOCKED and len(form) >= 20 else 0
    if not (each and align):
        return (None, 0) if said is None else (said, _BLOCK)
    most = -(-size // align) * each
    # Some writers count the values of all channels, or nothing: then the blocks are right.
    return (said, each) if said is not None and most - each < said <= most else (most, each)


def _aiff(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    magic = read_at(stream, start, 12)
    if magic[8:12] not in (b"AIFF", b"AIFC"):
        raise contradiction("The file is no sound file.", name, "AIFF or AIFC", f"an IFF file of {magic[8:12]!r}")
    layout = _Layout(">", b"SSND", _IFF)
    found = _walk(stream, start, end, name, layout)
    common = read_at(stream, found.bodies[b"COMM"][0], 22) if b"COMM" in found.bodies else b""
    count, slack = None, 0
    if b"SSND" in found.bodies:
        if len(common) < 18:
            raise contradiction(
                "The sound file's header is damaged.", name, "a chunk 'COMM' before the samples", common
            )
        if not found.open:
            count, slack = _aiff_count(common, magic[8:12] == b"AIFC", found.bodies[b"SSND"][1] - 8, name)
    piece = _piece(stream, start, end, found, layout, count, slack)
    follows = read_at(stream, found.stop, 4) in _IFF
    return [piece, *(pieces_behind(stream, found.stop, end, name) if follows else ())]


def _aiff_count(common: bytes, may_be_packed: bool, size: int, name: str) -> tuple[int, int]:
    """How many samples `size` bytes are, and by how many the decoder may differ."""
    channels, count, bits = struct.unpack(">HIH", common[:8])
    packed = common[18:22].lower() if may_be_packed and len(common) == 22 else b"none"
    if packed == b"ima4":  # counted in packets of 34 bytes, by some writers those of all channels
        return max(size, 0) // (34 * max(channels, 1)) * 64, _BLOCK
    width = _AIFC_BYTES.get(packed, -(-bits // 8) if packed in _AIFC_INTEGERS else 0)
    if not width or not channels:
        return count, _BLOCK
    if not 0 <= size - count * width * channels <= 1:  # an odd chunk may count its padding
        raise contradiction(
            "The sound file's header contradicts itself.",
            name,
            f"{count * width * channels} bytes of samples: {count} of {channels} channels, {width} bytes each",
            size,
        )
    return count, 0


def _caf(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    layout = _Layout(">", b"data", (b"caff",), start=8, size="Q", pad=1)
    found = _walk(stream, start, end, name, layout)
    count, desc, order = None, b"", tuple[int, ...]()
    if b"desc" in found.bodies:
        desc = read_at(stream, found.bodies[b"desc"][0], 32)
    if len(desc) == 32:
        size, each, channels = struct.unpack(">III", desc[16:28])
        if desc[8:12] == b"alac":
            order = _ALAC_ORDER.get(channels, ())
        if size and each == 1 and b"data" in found.bodies and not found.open:
            count = max(found.bodies[b"data"][1] - 4, 0) // size
    if b"pakt" in found.bodies and not found.open:
        count = struct.unpack(">q", read_at(stream, found.bodies[b"pakt"][0] + 8, 8))[0]
    return [replace(_piece(stream, start, end, found, layout, count, 0), order=order)]


SURVEYS: dict[bytes, Survey] = {
    **dict.fromkeys(_RIFF, _wav),
    _W64: _wave64,
    b"FORM": _aiff,
    b"caff": _caf,
}
