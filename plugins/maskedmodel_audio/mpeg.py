"""The frames of an MP3: each has a head of four bytes that says how long it is."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

from maskedmodel_audio.framed import without_tags
from maskedmodel_audio.pieces import Piece, Survey, behind_id3, read_at

# Kilobits per second by layer, 1 to 3, and by the number in the head, 1 to 14: of MPEG-1, and of MPEG-2 and 2.5.
_RATES_1 = (
    (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
_RATES_2 = (
    (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
)
_SAMPLE_RATES = (44100, 48000, 32000)
_GAP = 3  # frames that decoders put in front or take off


@dataclass(frozen=True)
class _Head:
    """What a frame's head says. Frames of one stream agree in version, layer and rate."""

    size: int  # bytes
    samples: int
    rate: int
    version: int
    layer: int


@cache
def _head(second: int, third: int) -> _Head | None:
    """The head with these bytes behind 0xFF; None where they are no head."""
    version, layer, speed, rate = second >> 3 & 3, 4 - (second >> 1 & 3), third >> 4, third >> 2 & 3
    if second & 0xE0 != 0xE0 or version == 1 or layer == 4 or speed in (0, 15) or rate == 3:
        return None
    hertz = _SAMPLE_RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    kilobits = (_RATES_1 if version == 3 else _RATES_2)[layer - 1][speed - 1]
    padding = third >> 1 & 1
    if layer == 1:
        return _Head((12000 * kilobits // hertz + padding) * 4, 384, hertz, version, layer)
    samples = 576 if layer == 3 and version != 3 else 1152
    return _Head(samples // 8 * 1000 * kilobits // hertz + padding, samples, hertz, version, layer)


def _head_at(content: bytes, at: int) -> _Head | None:
    return _head(content[at + 1], content[at + 2]) if at + 4 <= len(content) and content[at] == 0xFF else None


@dataclass
class _Run:
    """Frames that belong together: those behind one tag that counts them, or all that are alike."""

    start: int
    head: bytes  # of its first frame
    first: _Head
    counted: int | None  # frames, by the tag
    trimmed: int  # samples that its encoder added, by the tag
    frames: int = 0
    lost: str = ""
    notes: tuple[str, ...] = ()

    def piece(self, stop: int) -> Piece:
        lost, frames = self.lost, self.frames
        if self.counted is not None:
            frames = self.counted
            if self.frames < frames - 1:
                lost = lost or f"{self.frames} of {frames} frames are there"
        piece = Piece(self.start, stop, max(frames * self.first.samples - self.trimmed, 0), _GAP * self.first.samples)
        if self.counted is None:  # else the decoder would guess the length from the first frame
            piece = replace(piece, prefix=_counting_frame(self.head, frames))
        return replace(piece, missing=lost, notes=self.notes)


def _mpeg(stream: BinaryIO, start: int, end: int, name: str, whole: bool) -> list[Piece]:
    """MP3 has no header of its own: its frames are counted, and held against the tag that counts them, if any."""
    content = read_at(stream, 0, end)
    stop, found, run, at = without_tags(content), list[Piece](), None, start
    marks = _marks(content)
    while at < stop:
        head = _head_at(content, at)
        if head is None:
            behind = at + 128 if content.startswith(b"TAG", at) else at + behind_id3(content[at : at + 10])
            if behind > at:  # another file follows
                found += [run.piece(at)] if run else []
                run, at = None, behind
                continue
            tag_at = content.find(b"ID3", at, stop)
            following = _search(content, at + 1, stop if tag_at < 0 else tag_at)
            if run and any(content[at:following]):
                if following == stop:  # nothing that a cut could leave
                    run.notes = ("bytes behind the last frame left out",)
                else:
                    run.lost = run.lost or f"bytes {at} to {following} are no frame"
            at = following
            continue
        tag = _tag(content, at) if marks and not marks.isdisjoint((at + 36, at + 21, at + 13)) else None
        if run and (tag is not None or not _alike(head, run) or run.frames - 1 > (run.counted or run.frames)):
            found.append(run.piece(at))
            run = None
        if run is None:
            run = _Run(at, content[at : at + 4], head, *(tag or (None, 0)))
        if tag is None:
            run.frames += 1
        if at + head.size > stop:
            run.lost = run.lost or "its last frame isn't whole"
        at += head.size
    return [*found, *([run.piece(stop)] if run else [])]


def _marks(content: bytes) -> set[int]:
    """Where the tags that count frames may lie."""
    marks = set()
    for mark in (b"Xing", b"Info", b"VBRI"):
        at = content.find(mark)
        while at >= 0:
            marks.add(at)
            at = content.find(mark, at + 4)
    return marks


def _tag(content: bytes, at: int) -> tuple[int | None, int] | None:
    """How many frames the tag in the frame at `at` counts, and how many samples the encoder added. None: no tag."""
    if content[at + 36 : at + 40] == b"VBRI":
        return struct.unpack(">I", content[at + 50 : at + 54].ljust(4, b"\0"))[0], 0
    place = next((at + skip for skip in (36, 21, 13) if content[at + skip : at + skip + 4] in (b"Xing", b"Info")), None)
    if place is None or place + 8 > len(content):
        return None
    flags, place = content[place + 7], place + 8
    counted = struct.unpack(">I", content[place : place + 4].ljust(4, b"\0"))[0] if flags & 1 else None
    place += 4 * (flags & 1) + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    gaps = content[place + 21 : place + 24]
    if not content[place : place + 4].strip(b"\0") or len(gaps) < 3:
        return counted, 0
    return counted, (gaps[0] << 4 | gaps[1] >> 4) + ((gaps[1] & 0xF) << 8 | gaps[2])


def _counting_frame(head: bytes, frames: int) -> bytes:
    """A silent frame like that with this head, with the tag that says how many frames follow."""
    mono, second = head[3] >> 6 == 3, head[1] | 1  # without a checksum
    speeds = ((head[2] & 0x0F | speed << 4) for speed in range(head[2] >> 4, 15))
    for third in speeds:
        made = _head(second, third)
        skip = 36 if made is not None and made.version == 3 and not mono else 13
        skip = 21 if made is not None and (made.version == 3) == mono else skip
        if made is not None and made.size >= skip + 12:
            tag = bytes((head[0], second, third, head[3])).ljust(skip, b"\0") + b"Info" + struct.pack(">II", 1, frames)
            return tag.ljust(made.size, b"\0")
    return b""


def _search(content: bytes, at: int, stop: int) -> int:
    """The next frame that another follows, or `stop`."""
    while (at := content.find(b"\xff", at, stop)) >= 0:
        head = _head_at(content, at)
        if head is not None and (_head_at(content, at + head.size) is not None or at + head.size == stop):
            return at
        at += 1
    return stop


def _alike(head: _Head, run: _Run) -> bool:
    return (head.version, head.layer, head.rate) == (run.first.version, run.first.layer, run.first.rate)


_SECONDS = range(0xE0, 0x100)
SURVEYS: dict[bytes, Survey] = {bytes((0xFF, second)): _mpeg for second in _SECONDS if _head(second, 0x10) is not None}
