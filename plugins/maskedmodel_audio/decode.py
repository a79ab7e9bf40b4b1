"""One sound file to one waveform at the rate asked for, or a clear error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, BinaryIO

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import Sample, Settings
from maskedmodel.errors import DataError, DependencyError, install_hint
from maskedmodel_audio.frontend import load_torchaudio

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif")
# Formats that say in their header how many samples follow. Of the others libsndfile finds out by looking.
_COUNTED = ("FLAC", "AIFF")
_LOWEST_RATE, _HIGHEST_RATE = 1000, 768000  # samples per second: beyond these a header is damaged
_MOST_CHANNELS = 64
_MOST_WEIGHTS = 1 << 24  # of a resampling filter: between two rates with no common factor it can have any number


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
    longest: float = Field(
        600.0,
        gt=0,
        allow_inf_nan=False,
        description="Seconds to read of one file at most: where more would be read, the file is taken for broken.",
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


def decode(stream: BinaryIO, name: str, settings: SoundFileSettings) -> Tensor:
    """The waveform (channels, samples) float32 of a file. Full scale is 1.

    Raises DataError, naming the file, on one that is empty, damaged, cut off, too long, of an absurd rate, or that
    holds values that aren't finite; DependencyError without soundfile, and without torchaudio where the rate differs.
    """
    soundfile = load_soundfile()
    try:
        with soundfile.SoundFile(stream) as file:
            _check_header(file, name)
            rate, start, count = _part(file, name, settings)
            file.seek(start)
            samples = file.read(count, dtype="float32", always_2d=True)
            # Formats that don't count are also read up to an error in the middle, which libsndfile reports too late.
            cut = len(samples) < count and file.format in _COUNTED
    except (soundfile.SoundFileError, ValueError, OverflowError) as error:
        raise DataError(
            "The sound file can't be decoded.",
            where=name,
            expected="a whole file of a format that libsndfile reads, such as WAV, FLAC, Ogg or MP3",
            got=str(error).strip() or type(error).__name__,
            fix="Mend or remove it, or set train.on_bad_sample=skip.",
        ) from error
    if cut:
        raise DataError("The sound file is cut off.", where=name, expected=f"{count} samples", got=len(samples))
    if not len(samples):
        raise DataError("The sound file holds no samples that can be decoded.", where=name, expected="1 or more")
    wave = torch.from_numpy(samples).T
    wild = int((~torch.isfinite(wave)).sum())
    if wild:
        raise DataError(
            "The sound file holds values that aren't finite.",
            where=name,
            got=f"{wild} of {wave.numel()} samples NaN or infinite",
            fix="Fill them in or remove the file.",
        )
    wave = wave.mean(0, keepdim=True) if settings.mono else wave.contiguous()
    return resampled(wave, rate, settings.sample_rate, name)


def _check_header(file: Any, name: str) -> None:
    if not _LOWEST_RATE <= file.samplerate <= _HIGHEST_RATE:
        raise DataError(
            "The sound file claims an absurd sample rate.",
            where=name,
            expected=f"{_LOWEST_RATE} to {_HIGHEST_RATE} Hz",
            got=f"{file.samplerate} Hz",
            fix="Write it anew with its real rate, or remove it.",
        )
    if file.channels > _MOST_CHANNELS:
        raise DataError(
            "The sound file claims too many channels.",
            where=name,
            expected=f"at most {_MOST_CHANNELS}",
            got=file.channels,
        )


def _part(file: Any, name: str, settings: SoundFileSettings) -> tuple[int, int, int]:
    """The file's rate, and which of its samples to read: the first, and how many."""
    rate, start = int(file.samplerate), round(settings.offset * file.samplerate)
    count = int(file.frames) - start
    if count <= 0:
        raise DataError(
            "The sound file is empty." if not file.frames else "The sound file ends before the offset.",
            where=name,
            expected=f"more than {settings.offset:g} s",
            got=f"{file.frames} samples, {file.frames / rate:g} s",
            fix="Remove it, or set train.on_bad_sample=skip.",
        )
    if settings.seconds is not None:
        count = min(count, max(round(settings.seconds * rate), 1))
    if count > settings.longest * rate:
        raise DataError(
            "The sound file is too long.",
            where=name,
            expected=f"at most {settings.longest:g} s",
            got=f"{count / rate:g} s",
            fix="Raise data.longest, or set data.seconds to read a part of each file.",
        )
    return rate, start, count


def resampled(wave: Tensor, rate: int, wanted: int, name: str) -> Tensor:
    """A waveform (channels, samples) at another rate, band-limited. Raises DataError where the rates fit too badly."""
    if rate == wanted:
        return wave
    common = math.gcd(rate, wanted)
    old, new = rate // common, wanted // common
    weights = new * (old + 14 * max(old / new, 1))  # as torchaudio makes them: 6 zero crossings to either side
    if weights > _MOST_WEIGHTS:
        raise DataError(
            "The sound file's rate can't be resampled to the one asked for: they have no common factor to speak of.",
            where=name,
            expected=f"a rate such as {wanted} or {2 * wanted} Hz, or 44100 or 48000 Hz",
            got=f"{rate} Hz, to become {wanted} Hz",
            fix="Resample the file beforehand.",
        )
    signal: Tensor = load_torchaudio().functional.resample(wave, rate, wanted)
    return signal


def read_file(path: Path, settings: SoundFileSettings) -> Sample:
    """One sound file that a user names, as a source of these settings would hold it. Raises DataError."""
    try:
        with path.open("rb") as stream:
            return Sample(signal=decode(stream, str(path), settings), id=path.name)
    except OSError as error:
        raise DataError("The file can't be read.", where=path, got=error.strerror) from error
