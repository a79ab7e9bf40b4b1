"""One sound file to one waveform at the rate asked for, or a clear error."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from maskedmodel import Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import legible, open_regular, parsing
from maskedmodel_audio.frontend import load_torchaudio
from maskedmodel_audio.pieces import pieces_of
from maskedmodel_audio.reading import Reading, SoundFileSettings

EXTENSIONS = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc"),
    *(".rf64", ".bwf", ".w64", ".caf", ".au", ".sph"),
)
_MOST_WEIGHTS = 1 << 24  # of a resampling filter: between two rates with no common factor it can have any number


@dataclass(frozen=True)
class Sound:
    """What was read of a sound file: the waveform (channels, samples) float32, and what became of it on the way."""

    wave: Tensor
    notes: tuple[str, ...] = ()


def decode(stream: BinaryIO, name: str, settings: SoundFileSettings) -> Tensor:
    """The waveform (channels, samples) float32 of a file, as `read_sound` gives it, without its notes."""
    return read_sound(stream, name, settings).wave


def read_sound(stream: BinaryIO, name: str, settings: SoundFileSettings) -> Sound:
    """The waveform of a file, full scale 1, and notes of what was converted.

    Files joined end to end are read one after the other, where they have one rate and one number of channels.

    Raises DataError, naming the file, on one that is empty, damaged, cut off, too long or too large, of an absurd rate,
    or that holds values that aren't finite; DependencyError without soundfile, and without torchaudio where the rate
    differs.
    """
    whole = settings.offset == 0 and settings.seconds is None
    reading = Reading(stream, name, settings, pieces_of(stream, name, whole, settings.largest))
    samples, notes = reading.samples(), reading.notes
    wave = torch.from_numpy(samples).T
    # One value that isn't finite makes the sum so, and a sum is quick; it may also overflow.
    wild = 0 if bool(wave.sum().isfinite()) else int((~torch.isfinite(wave)).sum())
    if wild:
        raise DataError(
            "The sound file holds values that aren't finite.",
            where=name,
            got=f"{wild} of {wave.numel()} samples NaN or infinite",
            fix="Fill them in or remove the file.",
        )
    if settings.mono and wave.shape[0] > 1:
        notes.append(f"{wave.shape[0]} channels averaged")
    wave = wave.mean(0, keepdim=True) if settings.mono else wave.contiguous()
    if reading.rate != settings.sample_rate:
        notes.append(f"resampled from {reading.rate} to {settings.sample_rate} Hz")
    return Sound(resampled(wave, reading.rate, settings.sample_rate, name), tuple(notes))


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
    name = legible(str(path))
    with open_regular(path) as stream, parsing("The file can't be read.", name):
        sound = read_sound(stream, name, settings)
    return Sample(signal=sound.wave, id=legible(path.name), notes=sound.notes)
