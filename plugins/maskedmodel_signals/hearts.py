"""The `leads` source: heartbeats made by formula, as leads see them from where they are; nothing is loaded."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.random import default_rng
from pydantic import Field, PositiveInt
from torch import Tensor

from maskedmodel import DataSource
from maskedmodel.sources import SampleDataset, SignalDataset, Split
from maskedmodel_signals.beats import KINDS, heart
from maskedmodel_signals.montage import LeadSettings

_REMEMBERED = 2**28  # bytes of signals: making one takes as long as a small model takes to learn from it


class HeartsSettings(LeadSettings):
    """Settings of the `leads` source."""

    name: Literal["leads"] = "leads"
    length: int = Field(500, ge=100, description="Length of a signal, in samples.")
    fewest_leads: PositiveInt | None = Field(
        None,
        description="Each signal has between so many of the leads and all, drawn at random; the others are absent. "
        "null: all.",
    )
    train_samples: PositiveInt = Field(3072, description="Number of signals to train on.")
    val_samples: PositiveInt = Field(600, description="Number of signals to validate with.")
    noise: float = Field(0.08, ge=0, description="Standard deviation of the noise in each lead, in millivolts.")
    seed: int = Field(0, ge=0, description="Seed of all signals.")


class _Maker:
    """Signal `first` and those after it, each a function of its number and the seed."""

    def __init__(self, settings: HeartsSettings, first: int) -> None:
        self.settings, self.first = settings, first
        self.vectors = settings.described().double().numpy()

    def __call__(self, index: int) -> Tensor:
        s, number = self.settings, self.first + index
        draw, time = default_rng([s.seed, number]), np.arange(s.length) / s.rate
        signal = self.vectors @ heart(draw, number % len(KINDS), time)
        shape = (len(signal), 1)
        phase = draw.uniform(0.1, 0.5) * time + draw.uniform(size=shape)
        signal += draw.normal(0, 0.1, shape) * np.sin(2 * np.pi * phase)  # a drift, as of breathing
        signal += s.noise * draw.normal(size=signal.shape)
        if s.fewest_leads is not None and s.fewest_leads < len(signal):
            count = int(draw.integers(s.fewest_leads, len(signal) + 1))
            signal[draw.permutation(len(signal))[count:]] = np.nan
        return torch.from_numpy(signal).float()


class Hearts(DataSource[HeartsSettings]):
    """Heartbeats of six kinds, as the leads of an ECG see them: (leads, length) float32 in millivolts.

    A dipole in the heart is a sum of bells in time (McSharry et al. 2003; in three dimensions Sameni et al. 2007),
    turned and scaled for each signal as hearts differ. A lead gives its projection on the lead's vector, with noise and
    a drift. The label is the kind, each equally often: regular; irregular without P, as in atrial fibrillation; wide
    QRS, as in a bundle branch block; raised ST; inverted T; early beats. These are cartoons, no patients.
    """

    gives_nan = True

    def open(self, split: Split) -> SampleDataset:
        s = self.settings
        first, count = (0, s.train_samples) if split == "train" else (s.train_samples, s.val_samples)
        numbers = range(first, first + count)
        ids = [f"leads-{s.seed}-{number}" for number in numbers]
        return SignalDataset(_Maker(s, first), ids, [number % len(KINDS) for number in numbers], remember=_REMEMBERED)

    def class_names(self) -> list[str]:
        return list(KINDS)

    def channel_names(self) -> tuple[str, ...]:
        return self.settings.names
