"""The samples of one sound file, and what its container says held against what was decoded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, BinaryIO, Literal

import numpy as np
from pydantic import Field, PositiveInt, model_validator

from maskedmodel import Settings
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel_audio.pieces import KINDS, Guarded, Piece

_LOWEST_RATE, _HIGHEST_RATE = 1000, 768000  # samples per second: beyond these a header is damaged
_MOST_CHANNELS = 64
_BLOCK = 1 << 16  # samples read at once where nobody knows how many there are
_SMALL = 1 << 12  # the same where one that is damaged is read as far as it goes
_UNKNOWN = 1 << 62  # samples: libsndfile says the largest number it has where a header leaves the length open
_REMOVE = "Mend or remove it, or set train.on_bad_sample=skip."

Samples = np.ndarray[Any, np.dtype[np.float32]]  # (samples, channels)


class SoundFileSettings(Settings):
    """What becomes of a sound file."""

    sample_rate: int = Field(
        16000,
        ge=1000,
        le=768000,
        description="Samples per second that files are resampled to, in Hz: the same as tokenizer.sample_rate.",
    )
    mono: bool = Field(True, description="Whether the channels of a file are averaged. false: they are kept.")
    offset: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="Seconds of each file to skip. A file that ends before is broken."
    )
    seconds: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Seconds of each file to read at most. null: to its end."
    )
    incomplete: Literal["refuse", "read"] = Field(
        "refuse",
        description="A file that ends before its header says, or that is damaged on the way. refuse: it is a broken "
        "sample. read: what is there is read, which is told.",
    )
    longest: float = Field(
        600.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds to read of one file at most: where more would be read, the file is taken for broken.",
    )
    largest: PositiveInt = Field(
        2048,
        description="MiB that one file may take once it is decoded, at its own rate or at sample_rate, before channels "
        "are averaged: a larger one is taken for broken.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SoundFileSettings:
        if self.seconds is not None and self.seconds > self.longest:
            raise ValueError(f"seconds must not exceed longest, got {self.seconds:g} s and {self.longest:g} s")
        return self


def load_soundfile() -> Any:
    """The soundfile module. Raises DependencyError where it is missing or finds no libsndfile."""
    try:
        import soundfile  # type: ignore[import-untyped]
    except (ImportError, OSError) as error:  # the latter: libsndfile isn't there
        raise DependencyError(
            "Reading sound files needs soundfile, which can't be loaded.",
            got=f"{type(error).__name__}: {error}",
            fix=install_hint(extra="audio"),
        ) from error
    return soundfile


@cache
def _forward_file() -> Any:
    """soundfile's class of files, without its jumps after each read: some formats and unknown lengths know none."""

    class Forward(load_soundfile().SoundFile):  # type: ignore[misc]
        def seekable(self) -> bool:
            return False

        @property
        def jumps(self) -> bool:
            return bool(super().seekable())

    return Forward


@dataclass(frozen=True)
class Header:
    """What a file's header says. `seconds` is None where it leaves its length open."""

    kind: str  # "FLAC", "MP3", ...
    rate: int
    channels: int
    seconds: float | None


def read_header(stream: BinaryIO, name: str) -> Header:
    """A file's header as libsndfile understands it, nothing decoded or compared. Raises DataError."""
    soundfile = load_soundfile()
    try:
        with _forward_file()(Guarded(stream)) as file:
            known = 0 < file.frames < _UNKNOWN
            seconds = file.frames / file.samplerate if known and file.samplerate else None
            return Header(file.format, int(file.samplerate), int(file.channels), seconds)
    except (soundfile.SoundFileError, ValueError, OverflowError, OSError) as error:
        raise DataError("The sound file can't be opened.", where=name, got=str(error)) from error


class Reading:
    """Reads what settings ask for out of a file's pieces, and tells what was odd.

    rate   of the samples in Hz; 0 until they are read.
    notes  what is to be told of the file.
    """

    def __init__(self, stream: BinaryIO, name: str, settings: SoundFileSettings, pieces: list[Piece]) -> None:
        self.stream, self.name, self.settings, self.pieces = stream, name, settings, pieces
        self.rate = self.channels = 0
        self.notes: list[str] = [f"{len(pieces)} files joined in one, read as one"] if len(pieces) > 1 else []
        self._skip = self._taken = 0  # samples yet to be passed over, and those that were read
        self._left: int | None = None  # samples yet to be read; None: to the end

    def samples(self) -> Samples:
        """(samples, channels) float32. Raises DataError on whatever is wrong."""
        parts, passed = list[Samples](), 0
        for piece in self.pieces:
            if self._left == 0:
                break
            with self._opened(piece) as file:
                count = piece.count
                if count is not None and piece.clock:
                    count = count * self.rate // piece.clock
                part, skipped = self._part(piece, file, count)
                if len(piece.order) == self.channels and not self.settings.mono:
                    part = part[:, piece.order]
                    self._tell("channels put into the order of WAV")
            passed += skipped + len(part)
            self._taken += len(part)
            if self._left is not None:
                self._left -= len(part)
            parts.append(part)
            for note in piece.notes:
                self._tell(note)
        if not self._taken:
            raise DataError(
                "The sound file ends before the offset." if passed else "The sound file is empty.",
                where=self.name,
                expected=f"more than {self.settings.offset:g} s",
                got=f"{passed} samples, {passed / max(self.rate, 1):g} s",
                fix="Remove it, or set train.on_bad_sample=skip.",
            )
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    @contextmanager
    def _opened(self, piece: Piece) -> Iterator[Any]:
        """The piece's samples. Turns what libsndfile raises into a DataError."""
        soundfile = load_soundfile()
        self._found_missing(piece)
        try:
            with _forward_file()(piece.open(self.stream)) as file:
                self._check_header(file)
                yield file
        except (soundfile.SoundFileError, ValueError, OverflowError) as error:
            raise DataError(
                "The sound file can't be decoded.",
                where=self.name,
                expected=f"a whole file: {KINDS}",
                got=str(error).strip() or type(error).__name__,
                fix=_REMOVE,
            ) from error

    def _check_header(self, file: Any) -> None:
        if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
            raise DataError(
                "The sound file claims an absurd sample rate.",
                where=self.name,
                expected=f"{_LOWEST_RATE} to {_HIGHEST_RATE} Hz",
                got=f"{file.samplerate} Hz",
                fix="Write it anew with its real rate, or remove it.",
            )
        if file.channels > _MOST_CHANNELS:
            raise DataError(
                "The sound file claims too many channels.",
                where=self.name,
                expected=f"at most {_MOST_CHANNELS}",
                got=file.channels,
            )
        if self.rate and (file.samplerate, file.channels) != (self.rate, self.channels):
            raise DataError(
                "The sound file joins parts that differ.",
                where=self.name,
                expected=f"{self.rate} Hz and {self.channels} channels throughout, as at its start",
                got=f"{file.samplerate} Hz and {file.channels} channels further on",
                fix="Split it into files of their own.",
            )
        if not self.rate:
            self.rate, self.channels = int(file.samplerate), int(file.channels)
            self._skip = round(self.settings.offset * self.rate)
            if self.settings.seconds is not None:
                self._left = max(round(self.settings.seconds * self.rate), 1)

    def _part(self, piece: Piece, file: Any, count: int | None) -> tuple[Samples, int]:
        """What is wanted of a piece that holds `count` samples, and how many of it were passed over before."""
        if count is not None and self._skip >= count:
            self._skip -= count
            return np.empty((0, self.channels), np.float32), count
        skipped, self._skip = self._skip, 0
        if count is None:
            passed = self._pass(file, skipped)
            self._skip = skipped - passed
            return self._open_ended(piece, file), passed
        wanted = count - skipped if self._left is None else min(count - skipped, self._left)
        self._check_length(wanted)
        if skipped and file.jumps:
            file.seek(skipped)
        elif self._pass(file, skipped) < skipped:
            self._found_short(count, skipped)
        to_end = skipped + wanted == count
        return self._counted(piece, file, wanted, count if to_end else None, skipped), skipped

    def _counted(self, piece: Piece, file: Any, wanted: int, count: int | None, skipped: int) -> Samples:
        """The next `wanted` samples; to the piece's end where its `count` is given, and then held against it."""
        if self.settings.incomplete == "read":
            part = self._as_far_as_it_goes(file, wanted + (0 if count is None or piece.filled else piece.slack))
        else:
            part = file.read(wanted, dtype="float32", always_2d=True)
        if count is None:
            if len(part) < wanted:
                self._found_short(skipped + wanted, skipped + len(part))
            return part
        if len(part) == wanted and (piece.exact or (piece.slack and not piece.filled)):
            more = self._beyond(file, piece.slack + 1)
            if len(more) > piece.slack:
                raise DataError(
                    "The sound file holds more than its header counts.",
                    where=self.name,
                    expected=f"{count} samples",
                    got="more",
                    fix="Write it anew with a tool that plays it whole, such as ffmpeg or sox, or remove it.",
                )
            part = np.concatenate([part, more]) if len(more) else part
        elif skipped + len(part) < count - piece.slack:
            self._found_short(count, skipped + len(part))
        return part

    def _beyond(self, file: Any, count: int) -> Samples:
        """Up to `count` samples behind those that are counted; what can't be decoded there is none."""
        try:
            more: Samples = file.read(count, dtype="float32", always_2d=True)
        except load_soundfile().SoundFileError:
            return np.empty((0, self.channels), np.float32)
        return more

    def _open_ended(self, piece: Piece, file: Any) -> Samples:
        """The samples of a piece that doesn't say how many there are: to its end, or as many as are wanted."""
        blocks, got = [np.empty((0, self.channels), np.float32)], 0
        while self._left is None or got < self._left:
            block = file.read(
                _BLOCK if self._left is None else min(_BLOCK, self._left - got), dtype="float32", always_2d=True
            )
            if not len(block):
                break
            got += len(block)
            self._check_length(got)
            blocks.append(block)
        return np.concatenate(blocks)

    def _as_far_as_it_goes(self, file: Any, count: int) -> Samples:
        blocks, got = [np.empty((0, self.channels), np.float32)], 0
        while got < count:
            try:
                block = file.read(min(_SMALL, count - got), dtype="float32", always_2d=True)
            except load_soundfile().SoundFileError:
                break
            if not len(block):
                break
            got += len(block)
            blocks.append(block)
        return np.concatenate(blocks)

    def _pass(self, file: Any, count: int) -> int:
        """Pass over `count` samples. How many there were, where it can't be jumped over them."""
        passed = 0
        while passed < count:
            block = file.read(min(_BLOCK, count - passed), dtype="float32", always_2d=True)
            if not len(block):
                break
            passed += len(block)
        return passed

    def _check_length(self, count: int) -> None:
        """Raises DataError where `count` samples more would be too long, or too large."""
        total = self._taken + count
        if total > self.settings.longest * self.rate:
            raise DataError(
                "The sound file is too long.",
                where=self.name,
                expected=f"at most {self.settings.longest:g} s",
                got=f"{total / self.rate:g} s",
                fix="Raise data.longest, or set data.seconds to read a part of each file.",
            )
        mebibytes = total * max(1.0, self.settings.sample_rate / self.rate) * self.channels * 4 / (1 << 20)
        if mebibytes > self.settings.largest:
            raise DataError(
                "The sound file is too large once it is decoded.",
                where=self.name,
                expected=f"at most {self.settings.largest} MiB",
                got=f"{mebibytes:.0f} MiB: {total / self.rate:g} s of {self.channels} channels at {self.rate} Hz",
                fix="Raise data.largest, or set data.seconds to read a part of each file.",
            )

    def _found_missing(self, piece: Piece) -> None:
        if piece.missing:
            self._cut("a whole file", piece.missing)

    def _found_short(self, count: int, got: int) -> None:
        self._cut(f"{count} samples", got)

    def _cut(self, expected: object, got: object) -> None:
        """Raises DataError for a file that is cut off, or notes it where such files are read as far as they go."""
        if self.settings.incomplete == "refuse":
            raise DataError(
                "The sound file is cut off.",
                where=self.name,
                expected=expected,
                got=got,
                fix="Mend or remove it, set train.on_bad_sample=skip, or data.incomplete=read to use what is there.",
            )
        self._tell("cut off: read as far as it goes")

    def _tell(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)
