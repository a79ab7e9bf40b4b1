"""Decoded waveforms kept in memory: decoding and resampling every clip in every epoch would take longer than a step."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel.sources import check_memory, decoded
from maskedmodel_audio.decode import Sound

Kept = Literal["float16", "float32"]
_Place = tuple[int, int, int]  # first sample, channels, samples of each

_log = logging.getLogger(__name__)


class Waveforms:
    """Reads clip `index` as float32 out of one tensor that holds them all; raises the DataError of one that is broken.

    One tensor, because data workers then share it instead of copying it. `notes` are those of clips that have any.
    """

    def __init__(
        self,
        samples: Tensor,
        places: dict[int, _Place],
        bad: dict[int, dict[str, Any]],
        notes: dict[int, tuple[str, ...]],
    ) -> None:
        self.samples, self.places, self.bad, self.notes = samples, places, bad, notes

    def __call__(self, index: int) -> Sound:
        if index in self.bad:
            raise DataError(**self.bad[index])
        start, channels, length = self.places[index]
        wave = self.samples[start : start + channels * length].reshape(channels, length).float()
        return Sound(wave, self.notes.get(index, ()))


def in_memory(read: Callable[[int], Sound], count: int, kept: Kept, timeout: float) -> Waveforms:
    """Decode all clips now, by threads: libsndfile and torch let go of the interpreter lock.

    float16 takes half the memory and adds noise about 70 dB below the signal. A clip that takes longer than `timeout`
    seconds is bad.
    Raises DataError where they need more memory than this machine has.
    """
    dtype = getattr(torch, kept)
    parts: list[Tensor] = []
    places: dict[int, _Place] = {}
    bad: dict[int, dict[str, Any]] = {}
    notes: dict[int, tuple[str, ...]] = {}
    total = 0
    _log.info("decoding %d clips into memory", count)

    def kept_form(index: int) -> Sound:
        sound = read(index)
        clip = sound.wave.to(dtype)
        if not bool(torch.isfinite(clip).all()):
            raise DataError("A clip is too loud for float16.", where=f"clip {index}", fix="Set memory: float32.")
        return Sound(clip, sound.notes)

    for index, sound in decoded(kept_form, count, timeout):
        if isinstance(sound, DataError):  # kept, to be raised whenever the sample is read
            bad[index] = _record(sound)
            continue
        if sound.notes:
            notes[index] = sound.notes
        places[index] = (total, *sound.wave.shape)
        parts.append(sound.wave.flatten())
        total += sound.wave.numel()
        got = f"memory: {kept}, {index + 1} of {count} clips"
        fix = "Set data.memory=null, a lower sample_rate, or seconds."
        check_memory(total * dtype.itemsize, got, fix, share=0.5)  # at the end they are there twice for a moment
    return Waveforms(torch.cat(parts) if parts else torch.empty(0, dtype=dtype), places, bad, notes)


def _record(error: DataError) -> dict[str, Any]:
    details = {"where": error.where, "expected": error.expected, "got": error.got, "fix": error.fix}
    return {"what": error.what, **{key: str(value) for key, value in details.items() if value is not None}}
