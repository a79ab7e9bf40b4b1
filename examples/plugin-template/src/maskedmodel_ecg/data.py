"""Made-up signals with the rhythm of a heart, and a data source of them. Put your own reader in its place."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings, hookimpl

# The waves of a heartbeat (P, Q, R, S, T): when and how wide, in parts of a beat, how high, and the axis of each, in
# turns. A lead sees the projection of a wave on its own direction, so one lead tells much about another.
WAVES = (
    (0.18, 0.040, 0.9, 0.15),
    (0.26, 0.020, -1.2, 0.10),
    (0.30, 0.025, 4.5, 0.16),
    (0.35, 0.022, -1.8, 0.30),
    (0.55, 0.070, 1.8, 0.12),
)
RATE = 100  # samples per second


def beats(batch: int, channels: int, length: int, generator: torch.Generator) -> Tensor:
    """Signals (batch, channels, length) with 50 to 110 beats a minute, of a spread near 1."""

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(batch, 1, 1, generator=generator)

    phase = (between(0, 1) + torch.arange(length) / RATE * between(50, 110) / 60) % 1
    lead = torch.arange(channels)[:, None] / 12
    signal = 0.05 * torch.randn(batch, channels, length, generator=generator)
    for centre, width, height, axis in WAVES:
        seen = torch.cos(2 * torch.pi * (lead - axis - between(-0.05, 0.05)))
        signal = signal + height * seen * torch.exp(-0.5 * ((phase - centre) / width) ** 2)
    return signal


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


@hookimpl
def maskedmodel_data_sources():
    return [EcgRecords]
