"""A toy modality whose runs take a second, and what tests do with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import DataSource, GridTokenizer, MaskedAutoencoder, Noise, Sample, Settings
from maskedmodel.config.build import build_callbacks, build_components
from maskedmodel.config.load import load_config
from maskedmodel.config.sections import RunConfig
from maskedmodel.errors import DataError
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.sources import Split
from maskedmodel.training.distributed import World
from maskedmodel.training.loop import TrainResult, train
from maskedmodel.training.masked import MaskedModelling


class WaveSettings(Settings):
    name: Literal["wave"] = "wave"
    measured: bool = Field(False, description="Whether the scale is measured.")


class Wave(GridTokenizer[WaveSettings]):
    """Two channels along time, rolled at random in training."""

    axes = ("time",)
    channels = 2
    size = (24,)
    patch = (3,)

    def __init__(self, settings: WaveSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.register_buffer("scale", torch.tensor(0.0 if self.settings.measured else 1.0))

    @property
    def needs_statistics(self) -> bool:
        return bool(self.scale == 0)

    def fit_statistics(self, signals: Any) -> None:
        self.scale.fill_(torch.cat(list(signals)).std())

    def tokenize(self, signal: Tensor) -> Any:
        return super().tokenize(signal / self.scale)

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        shift = (noise.uniform(1, "roll") * 24).long()
        places = (torch.arange(24) + shift) % 24
        return signal.gather(2, places[:, None].expand_as(signal))


class WavesSettings(Settings):
    name: Literal["waves"] = "waves"
    count: int = Field(20, description="Samples.")
    broken: tuple[int, ...] = Field((), description="Samples that can't be read.")
    broken_val: tuple[int, ...] = Field((), description="The same of validation.")
    infinite: tuple[int, ...] = Field((), description="Samples whose values overflow the loss.")


class Waves(DataSource[WavesSettings]):
    seen: ClassVar[list[int]] = []  # what the main process read, in order

    def open(self, split: Split) -> Any:
        return _Waves(self.settings, split)


class _Waves:
    def __init__(self, settings: WavesSettings, split: Split) -> None:
        self.settings, self.split = settings, split

    def __len__(self) -> int:
        return self.settings.count if self.split == "train" else 7

    def __getitem__(self, index: int) -> Sample:
        if self.split == "train":
            Waves.seen.append(index)
            if index in self.settings.broken:
                raise DataError("Cut short.", where=f"wave {index}")
        elif index in self.settings.broken_val:
            raise DataError("Cut short.", where=f"wave {index}")
        phase = torch.arange(24) * (0.3 + 0.05 * index) + (self.split == "val")
        signal = torch.stack([phase.sin(), phase.cos()])
        if self.split == "train" and index in self.settings.infinite:
            signal = signal * 1e30
        return {"signal": signal, "id": f"{self.split}-{index}", "label": index % 2}


BASE: dict[str, Any] = {
    "data": {"name": "waves"},
    "tokenizer": {"name": "wave"},
    "mask": {"name": "ramped", "start": 0.4, "end": 0.8},
    "model": {
        "encoder": {"dim": 16, "depth": 1, "heads": 2},
        "decoder": {"dim": 16, "depth": 2, "heads": 2},
    },
    "optim": {"lr": 0.01, "per_batch": None},
    "train": {
        "steps": 14,
        "batch": 8,
        "precision": "fp32",
        "device": "cpu",
        "log_every": 1,
        "validate_every": 5,
        "checkpoint_every": 4,
    },
}


@pytest.fixture(scope="session")
def registry() -> Registry:
    built_in = load_registry(strict=True)
    return replace(
        built_in,
        tokenizers={**built_in.tokenizers, "wave": Wave},
        data_sources={**built_in.data_sources, "waves": Waves},
    )


@pytest.fixture
def configured(registry: Registry) -> Callable[..., RunConfig]:
    def configure(*overrides: str) -> RunConfig:
        return load_config(BASE, overrides, registry=registry)

    return configure


def build(config: RunConfig, registry: Registry) -> tuple[MaskedAutoencoder, DataSource[Any]]:
    parts = build_components(config, registry)
    with seeded(config.train.seed):
        return MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, config.model), parts.source


@pytest.fixture
def run(configured: Callable[..., RunConfig], registry: Registry) -> Callable[..., TrainResult]:
    """Train in a folder: run(folder, "train.steps=3", ...). `watch` makes what looks at the encoder, where given."""

    def go(
        folder: Path, *overrides: str, watch: Callable[..., Any] | None = None, whole: str | None = None
    ) -> TrainResult:
        config = configured(*overrides)
        folder.mkdir(parents=True, exist_ok=True)
        model, source = build(config, registry)
        look = None if watch is None else watch(config, source)
        learning = MaskedModelling(model, config.train)
        return train(
            config,
            folder,
            learning,
            source,
            World(0, 1, torch.device("cpu")),
            quiet=True,
            watch=look,
            callbacks=build_callbacks(config, registry),
            whole=whole,
        )

    return go
