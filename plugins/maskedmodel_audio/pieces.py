"""What a container says of the sound in it: where it lies, and how many samples it counts.

libsndfile decodes, but it believes the bytes at hand: of half a WAV it reads half, of two Ogg files joined the first.
So the containers are read here first, as far as their lengths go, and `decode` compares.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import BinaryIO

from maskedmodel.errors import DataError

KINDS = "WAV, RF64, W64, AIFF, AU, CAF, NIST Sphere, FLAC, Ogg (Vorbis, Opus, FLAC) or MP3"
_MOST_PIECES = 10_000
_LOOKED_THROUGH = (b"fLaC", b"OggS", b"\xff")
_REPAIR = "Write the file anew with a tool that plays it whole, such as ffmpeg or sox, or remove it."


@dataclass(frozen=True)
class Piece:
    """One whole sound file, as bytes of the file it lies in. Files joined end to end give several.

    start, stop  its bytes.
    count        samples of each channel that its container counts. None: it doesn't say.
    slack        by how many the decoded samples may differ.
    filled       whether what is decoded beyond `count` is the filling of a codec's last block, and left out.
    clock        rate in Hz at which `count` is counted, where that isn't the rate of the decoded samples. 0: it is.
    prefix       bytes to be decoded in front of it.
    patches      (place, bytes) to be decoded instead of those there: lengths that writers to a pipe left open.
    missing      what isn't there, where the container shows by itself that it is cut off.
    order        places of the channels in WAV's order, where the format has another: 5.1 is left, right, centre, low
                 frequencies, left behind, right behind. Only of files with as many channels.
    exact        whether decoding it to its end shows that nothing comes after what is counted.
    notes        what is to be told of it.
    """

    start: int
    stop: int
    count: int | None
    slack: int = 0
    filled: bool = False
    clock: int = 0
    prefix: bytes = b""
    patches: tuple[tuple[int, bytes], ...] = ()
    missing: str = ""
    order: tuple[int, ...] = ()
    exact: bool = False
    notes: tuple[str, ...] = ()

    def open(self, stream: BinaryIO) -> BinaryIO:
        """This piece alone, as a file."""
        if not self.prefix and not self.patches and self.start == 0 and self.stop == length_of(stream):
            stream.seek(0)
            return Guarded(stream)  # type: ignore[return-value]
        return _Window(stream, self)  # type: ignore[return-value]


class Guarded:
    """A file of which a damaged header can ask for no place before its beginning: soundfile would print a traceback."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.tell, self._seek = stream.read, stream.tell, stream.seek
        self.readinto = stream.readinto  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        try:
            return self._seek(offset, whence)
        except (ValueError, OSError):
            return self._seek(0)


class _Window(io.RawIOBase):
    """A stretch of a file, with something in front of it and a few bytes replaced."""

    def __init__(self, stream: BinaryIO, piece: Piece) -> None:
        super().__init__()
        self.stream, self.piece, self.at = stream, piece, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self.at, os.SEEK_END: self._length}[whence]
        self.at = max(base + offset, 0)
        return self.at

    @property
    def _length(self) -> int:
        return len(self.piece.prefix) + self.piece.stop - self.piece.start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        piece, count = self.piece, max(min(len(buffer), self._length - self.at), 0)
        content = bytearray(piece.prefix[self.at : self.at + count])
        begin = piece.start + max(self.at - len(piece.prefix), 0) - len(content)  # of `content`, as a place in the file
        content += read_at(self.stream, begin + len(content), count - len(content))
        for place, patch in piece.patches:
            low, high = max(place - begin, 0), min(place + len(patch) - begin, len(content))
            if low < high:
                content[low:high] = patch[low + begin - place : high + begin - place]
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)


def read_at(stream: BinaryIO, place: int, count: int) -> bytes:
    """`count` bytes from `place` on, fewer at the end of the file."""
    stream.seek(place)
    return stream.read(count)


def length_of(stream: BinaryIO) -> int:
    return stream.seek(0, os.SEEK_END)


def contradiction(what: str, name: str, expected: object, got: object) -> DataError:
    """The error of a file whose header contradicts what follows it, so that nobody knows how it is meant."""
    return DataError(what, where=name, expected=expected, got=got, fix=_REPAIR)


def pieces_of(stream: BinaryIO, name: str, whole: bool = True, most: int = 2048) -> list[Piece]:
    """The sound files that the file consists of: nearly always one.

    whole  whether the file will be read to its end: else what is only found by looking through it isn't looked for.
    most   MiB that are looked through: FLAC, Ogg and MP3 hold more once they are decoded.

    Raises DataError on a file of another kind, and where a header contradicts itself or what follows it.
    """
    end = length_of(stream)
    head = read_at(stream, 0, 16)
    start = 0
    if head.startswith(b"ID3"):
        start = behind_id3(head)
        head = read_at(stream, start, 16)
    magic, survey = _surveys().get(head[:4]) or _surveys().get(head[:2]) or (b"", None)
    if survey is None or not head.startswith(magic):
        raise DataError(
            "The sound file can't be decoded.",
            where=name,
            expected=f"a whole file: {KINDS}",
            got=f"{end} bytes that begin with {head[:8]!r}" if end else "an empty file",
            fix="Convert or remove it, or set train.on_bad_sample=skip.",
        )
    if end > most << 20 and head.startswith(_LOOKED_THROUGH):
        raise DataError(
            "The sound file is too large to be looked through.",
            where=name,
            expected=f"at most {most} MiB",
            got=f"{end >> 20} MiB",
            fix="Raise data.largest, or cut it into parts.",
        )
    try:
        found = survey(stream, start, end, name, whole)
    except (struct.error, IndexError) as error:
        raise contradiction("The sound file's header is damaged.", name, "a whole header", error) from error
    if len(found) > _MOST_PIECES:
        raise contradiction("The sound file is damaged.", name, f"at most {_MOST_PIECES:,} files joined", len(found))
    if found and found[0].start and not found[0].prefix:
        found[0] = replace(found[0], start=0)
    return found


Survey = Callable[[BinaryIO, int, int, str, bool], list[Piece]]


@cache
def _surveys() -> dict[bytes, tuple[bytes, Survey]]:
    """What else a file begins with and who reads it then, by its first four bytes, or two."""
    from maskedmodel_audio import chunked, framed, headed, mpeg  # not imported above: they make Pieces

    known = chunked.SURVEYS | headed.SURVEYS | framed.SURVEYS | mpeg.SURVEYS
    return {magic[:4]: (magic, survey) for magic, survey in known.items()}


def behind_id3(head: bytes) -> int:
    """How many bytes the ID3v2 tag takes that begins with `head`, 10 bytes of it; 0 where it is none."""
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:10]) > 127 or head[3] == 255:
        return 0
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte
    return 10 + size + (10 if head[5] & 0x10 else 0)
