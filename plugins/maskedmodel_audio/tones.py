"""The `tones` source: five kinds of sound made by formula, so nothing is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings
from maskedmodel.sources import SampleDataset, SignalDataset, Split
from maskedmodel_audio.decode import read_file
from maskedmodel_audio.reading import SoundFileSettings

KINDS = ("harmonic", "chirp", "amplitude modulated", "frequency modulated", "noise burst")
_LOWEST_PITCH, _HIGHEST_PITCH = 150.0, 1500.0  # Hz

_Array = np.ndarray[Any, np.dtype[np.float64]]

_REMEMBERED = 2**28  # bytes of clips: making one takes as long as a small model takes to learn from it


class TonesSettings(Settings):
    """Settings of the `tones` source."""

    name: Literal["tones"] = "tones"
    train_samples: int = Field(2000, ge=1, description="Number of training clips.")
    val_samples: int = Field(500, ge=1, description="Number of validation clips.")
    sample_rate: int = Field(
        16000,
        ge=2000,
        le=768000,
        description="Samples per second, in Hz: the same as tokenizer.sample_rate.",
    )
    shortest: float = Field(0.5, ge=0.05, description="Seconds of the shortest clip.")
    longest: float = Field(1.0, le=600, description="Seconds of the longest clip; lengths are even in between.")
    loudness: tuple[float, float] = Field(
        (0.05, 0.5), description="Range of a clip's peak before noise is added, even in decibels; full scale is 1."
    )
    noise: tuple[float, float] = Field(
        (20.0, 40.0), description="Range of the signal's power over that of the white noise added, in decibels."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="What the clips are drawn from.")

    @model_validator(mode="after")
    def _consistent(self) -> TonesSettings:
        if self.shortest > self.longest:
            raise ValueError(f"shortest must not exceed longest, got {self.shortest:g} s and {self.longest:g} s")
        if not 0 < self.loudness[0] <= self.loudness[1] <= 1:
            raise ValueError(f"loudness is a range with 0 < low <= high <= 1, got {self.loudness}")
        if not -100 <= self.noise[0] <= self.noise[1] <= 100:
            raise ValueError(f"noise is a range in decibels with -100 <= low <= high <= 100, got {self.noise}")
        return self


class _Maker:
    """Clip `index` of a split, of the kind `index` modulo five: a function of the settings and the index alone."""

    def __init__(self, settings: TonesSettings, split: Split) -> None:
        self.settings, self.stream = settings, ("train", "val").index(split)

    def __call__(self, index: int) -> Tensor:
        s = self.settings
        draw = np.random.default_rng([s.seed, self.stream, index])
        length = round(draw.uniform(s.shortest, s.longest) * s.sample_rate)
        clean = _sound(KINDS[index % len(KINDS)], np.arange(length) / s.sample_rate, s.sample_rate, draw)
        peak = math.exp(draw.uniform(*np.log(s.loudness)))
        clean *= peak / max(float(np.abs(clean).max()), 1e-9)
        share = 10 ** (-draw.uniform(*s.noise) / 10)
        hiss = draw.standard_normal(length) * math.sqrt(share * float(np.square(clean).mean()))
        return torch.from_numpy((clean + hiss).astype(np.float32))[None]


def _sound(kind: str, time: _Array, rate: int, draw: np.random.Generator) -> _Array:
    """One sound at `time` (N,) seconds. Pitches are log-uniform over the same range in every kind."""
    pitch = math.exp(draw.uniform(math.log(_LOWEST_PITCH), math.log(min(_HIGHEST_PITCH, rate / 5))))
    turn = 2 * math.pi * pitch * time + draw.uniform(0, 2 * math.pi)
    swings, start = draw.uniform(3.0, 12.0), draw.uniform(0, 2 * math.pi)  # a second, of amplitude or frequency
    swing = np.sin(2 * math.pi * swings * time + start)
    sound: _Array = np.sin(turn)
    if kind == "harmonic":
        for partial in range(2, 9):
            sound += draw.uniform(0.3, 1.0) / partial * np.sin(partial * turn) * (partial * pitch < 0.45 * rate)
    elif kind == "chirp":  # up or down by half an octave to one and a half
        last = pitch * 2.0 ** (draw.choice([-1.0, 1.0]) * draw.uniform(0.5, 1.5))
        sound = np.sin(turn + math.pi * (min(last, 0.45 * rate) - pitch) / time[-1] * time**2)
    elif kind == "amplitude modulated":
        sound *= 1 + draw.uniform(0.6, 1.0) * swing
    elif kind == "frequency modulated":  # by a tenth to three tenths of the pitch
        sound = np.sin(turn + draw.uniform(0.1, 0.3) * pitch / swings * swing)
    else:
        sound = draw.standard_normal(len(time)) * _bursts(time, draw)
    return sound


def _bursts(time: _Array, draw: np.random.Generator) -> _Array:
    """One to four bursts, each of which fades in and out."""
    envelope: _Array = np.zeros_like(time)
    for _ in range(draw.integers(1, 5)):
        centre, width = draw.uniform(0.1, 0.9) * time[-1], draw.uniform(0.02, 0.1)
        envelope += np.exp(-0.5 * np.square((time - centre) / width))
    return envelope


class Tones(DataSource[TonesSettings]):
    """Harmonic tones, chirps, amplitude and frequency modulated tones and bursts of noise, all in white noise.

    Samples are (1, samples) float32 of uneven lengths, labelled by kind. A clip depends on the seed, the split and its
    index alone, so that asking for more clips changes none.
    """

    def open(self, split: Split) -> SampleDataset:
        count = self.settings.train_samples if split == "train" else self.settings.val_samples
        ids = [f"{split}-{index:05d}" for index in range(count)]
        labels = [index % len(KINDS) for index in range(count)]
        return SignalDataset(_Maker(self.settings, split), ids, labels, remember=_REMEMBERED)

    def class_names(self) -> list[str]:
        return list(KINDS)

    def read(self, path: Path) -> Sample:
        return read_file(path, SoundFileSettings(name="file", sample_rate=self.settings.sample_rate))
