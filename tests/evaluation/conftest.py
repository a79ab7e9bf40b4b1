"""A tiny modality with labels: two kinds of 8x8 pictures, and a small model over them."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from maskedmodel_masks.uniform import Uniform
from maskedmodel_objectives.patch import Patch
from torch import Tensor

from maskedmodel import DataSource, GridTokenizer, MaskedAutoencoder, Sample, Settings
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import seeded


class GreySettings(Settings):
    name: Literal["grey"] = "grey"


class Grey(GridTokenizer[GreySettings]):
    """8x8 grey pictures in [0, 1], with a measured shift."""

    axes = ("height", "width")
    channels = 1
    size = (8, 8)
    patch = (2, 2)
    shift: Tensor

    def __init__(self, settings: GreySettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.register_buffer("shift", torch.zeros(1))

    def tokenize(self, signal: Tensor) -> Any:
        return super().tokenize(signal - self.shift)

    def detokenize(self, values: Tensor, like: Any) -> Tensor:
        return super().detokenize(values, like) + self.shift

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        return signal.clamp(0, 1).expand(-1, 3, -1, -1)


class LeadsSettings(Settings):
    name: Literal["leads"] = "leads"


class Leads(GridTokenizer[LeadsSettings]):
    """Three leads of 16 values, tokens per lead, drawn by the default heat map."""

    axes = ("time",)
    separate_channels = True
    channels = 3
    size = (16,)
    patch = (4,)


class BarsSettings(Settings):
    name: Literal["bars"] = "bars"
    labelled: bool = True
    doubled: int = 0


class Bars(DataSource[BarsSettings]):
    """Horizontal bars (label 0) and vertical ones (label 1) in noise; the splits share `doubled` samples."""

    def open(self, split: Literal["train", "val"]) -> list[Sample]:
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        samples: list[Sample] = []
        for index in range(40 if split == "train" else 20):
            signal, label = 0.1 * torch.rand(1, 8, 8, generator=generator), index % 2
            bar = signal[:, index % 8] if label == 0 else signal[:, :, index % 8]
            bar += 0.8
            sample = Sample(signal=signal, id=f"{split}-{index}")
            if self.settings.labelled:
                sample["label"] = label
            samples.append(sample)
        if split == "val" and self.settings.doubled:
            for sample, twin in zip(samples[: self.settings.doubled], self.open("train"), strict=False):
                sample["signal"] = twin["signal"].clone()
        return samples


def build(normalise: bool = True, tokenizer: Any = None) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=16, depth=1, heads=2), decoder=DecoderSettings(dim=16, depth=1, heads=2)
    )
    with seeded(3):
        return MaskedAutoencoder(tokenizer or Grey(), Uniform(), Patch(normalise=normalise), settings)


@pytest.fixture
def model() -> MaskedAutoencoder:
    return build()


@pytest.fixture
def raw_model() -> MaskedAutoencoder:
    return build(normalise=False)


@pytest.fixture
def leads_model() -> MaskedAutoencoder:
    return build(tokenizer=Leads())


@pytest.fixture
def bars() -> type[Bars]:
    return Bars
