"""A toy modality with labels whose fine-tuning takes a second: waves of two shapes, learnable and told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from pydantic import Field

from maskedmodel import DataSource, MaskedAutoencoder, Sample, Settings
from maskedmodel.adapting.run import Adapted, adapt
from maskedmodel.config.build import build_components
from maskedmodel.config.finetune import FinetuneConfig
from maskedmodel.config.load import dump_config, load_config
from maskedmodel.engine.settings import ModelSettings
from maskedmodel.errors import DataError
from maskedmodel.evaluation import judged
from maskedmodel.noise import seeded
from maskedmodel.plugins import Registry, load_registry
from maskedmodel.sources import Split
from maskedmodel.training.distributed import World
from maskedmodel.weights.runs import save
from tests.training.conftest import Wave

ALONE = World(0, 1, torch.device("cpu"))
ENCODER = {"dim": 16, "depth": 2, "heads": 2}


class ToldSettings(Settings):
    name: Literal["told"] = "told"
    count: int = Field(40, description="Training samples.")
    names: tuple[str, ...] | None = Field(("sine", "square"), description="What the labels mean.")
    unlabelled: tuple[int, ...] = Field((), description="Samples of each split without a label.")
    broken: tuple[int, ...] = Field((), description="Training samples that can't be read.")
    broken_val: tuple[int, ...] = Field((), description="Validation samples that can't be read.")


class Told(DataSource[ToldSettings]):
    """Sample i of a split has label i modulo the number of names, by which its frequency and its level go."""

    def open(self, split: Split) -> Any:
        return _Told(self.settings, split)

    def class_names(self) -> list[str] | None:
        return None if self.settings.names is None else list(self.settings.names)


class _Told:
    shift = 0  # what a test adds to every label

    def __init__(self, settings: ToldSettings, split: Split) -> None:
        self.settings, self.split = settings, split

    def __len__(self) -> int:
        return self.settings.count if self.split == "train" else 12

    def __getitem__(self, index: int) -> Sample:
        if index in (self.settings.broken if self.split == "train" else self.settings.broken_val):
            raise DataError("Cut short.", where=f"told {index}")
        label = index % len(self.settings.names or ("one",))
        phase = torch.arange(24) * (0.3 + 0.25 * label) + 0.7 * index + (self.split == "val")
        signal = torch.stack([phase.sin(), phase.cos()]) + label
        sample: Sample = {"signal": signal, "id": f"{self.split}-{index}"}
        if index not in self.settings.unlabelled:
            sample["label"] = (label + self.shift) % len(self.settings.names or ("one",))
        return sample


@pytest.fixture(scope="session")
def registry() -> Registry:
    built_in = load_registry(strict=True)
    return replace(
        built_in,
        tokenizers={**built_in.tokenizers, "wave": Wave},
        data_sources={**built_in.data_sources, "told": Told},
    )


@pytest.fixture(scope="session")
def pretrained(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run, whose weights are drawn."""
    given = {
        "data": {"name": "told"},
        "tokenizer": {"name": "wave"},
        "model": {"encoder": ENCODER, "decoder": {"dim": 16, "depth": 1, "heads": 2}},
    }
    config = load_config(given, registry=registry)
    parts = build_components(config, registry)
    with seeded(3):
        settings = ModelSettings.model_validate(given["model"])
        model = MaskedAutoencoder(parts.tokenizer, parts.scheduler, parts.objective, settings)
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    save(model, folder)
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of few draws: what they are is tested by itself."""
    monkeypatch.setattr(judged, "RESAMPLES", 5)


@pytest.fixture
def configured(registry: Registry, pretrained: Path) -> Callable[..., FinetuneConfig]:
    """The config of fine-tuning `pretrained`: configured("train.steps=3", ...)."""

    def configure(*overrides: str) -> FinetuneConfig:
        given = {
            "data": {"name": "told"},
            "tokenizer": {"name": "wave"},
            "model": {"encoder": ENCODER},
            "start": {"weights": str(pretrained)},
            "optim": {"lr": 0.01, "per_batch": None},
            "train": {
                "steps": 12,
                "batch": 8,
                "precision": "fp32",
                "device": "cpu",
                "log_every": 1,
                "validate_every": 4,
                "checkpoint_every": 4,
            },
        }
        return load_config(given, overrides, registry=registry, kind=FinetuneConfig)

    return configure


@pytest.fixture
def run(configured: Callable[..., FinetuneConfig], registry: Registry) -> Callable[..., Adapted]:
    """Fine-tune in a folder: run(folder, "train.steps=3", ...)."""

    def go(folder: Path, *overrides: str) -> Adapted:
        found = adapt(configured(*overrides), folder, registry, ALONE, quiet=True)
        assert found is not None
        return found

    return go
