"""Made-up signals with the rhythm of a heart, and a data source of them. Put your own reader in its place."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings

# The waves of a heartbeat (P, Q, R, S, T): when, in parts of a beat, how wide, and how high.
WAVES = ((0.18, 0.030, 0.15), (0.27, 0.012, -0.12), (0.30, 0.014, 1.0), (0.33, 0.012, -0.25), (0.55, 0.060, 0.30))
RATE = 100  # samples per second


def beats(batch: int, channels: int, length: int, generator: torch.Generator) -> Tensor:
    """Signals (batch, channels, length) with beats at 50 to 110 a minute, seen by each channel in its own way."""

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    beat = torch.arange(length) / RATE * between(50, 110, 1) / 60 + between(0, 1, 1)
    phase = (beat % 1)[:, None]
    signal = 0.05 * torch.randn(batch, channels, length, generator=generator)
    for centre, width, height in WAVES:
        gain = height * between(-0.3, 1.3, channels, 1)  # a wave points down where a channel looks from behind
        signal = signal + gain * torch.exp(-0.5 * ((phase - centre) / width) ** 2)
    return 3 * signal  # to a spread near 1


class EcgRecordsSettings(Settings):
    name: Literal["ecg"] = "ecg"
    records: int = Field(512, gt=0, description="Number of training signals; a quarter as many are for validation.")
    channels: int = Field(12, gt=0, description="Number of channels of a signal.")
    length: int = Field(1000, gt=0, description="Length of a signal, in samples.")


class EcgRecords(DataSource[EcgRecordsSettings]):
    """Signals made when they are read; each depends on its split and index alone."""

    def open(self, split):
        return _Records(self.settings, split)


class _Records:
    def __init__(self, settings: EcgRecordsSettings, split: str) -> None:
        self.settings, self.split = settings, split

    def __len__(self) -> int:
        return self.settings.records if self.split == "train" else max(self.settings.records // 4, 1)

    def __getitem__(self, index: int) -> Sample:
        generator = torch.Generator().manual_seed(2 * index + (self.split == "val"))
        signal = beats(1, self.settings.channels, self.settings.length, generator)[0]
        return {"signal": signal, "id": f"{self.split}/{index}"}
