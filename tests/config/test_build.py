"""What components draw as they are built follows from the seed and from nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from maskedmodel import MaskScheduler, Noise, Settings, Tokens
from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.plugins import Registry, load_registry


class DrawnSettings(Settings):
    name: Literal["drawn"] = "drawn"


class Drawn(MaskScheduler[DrawnSettings]):
    """One with weights of its own, as one that learns has."""

    def __init__(self, settings: DrawnSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.layer = nn.Linear(3, 3)

    def ratio(self, progress: float) -> float:
        return 0.5

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        return noise.uniform(tokens.length)


@pytest.fixture(scope="module")
def registry() -> Registry:
    built_in = load_registry(strict=True)
    return replace(built_in, mask_schedulers={**built_in.mask_schedulers, "drawn": Drawn})


def weights(registry: Registry, seed: int) -> Tensor:
    config = {"data": {"name": "digits"}, "tokenizer": {"name": "image", "size": 8, "patch": 4, "channels": 1},
              "mask": {"name": "drawn"}, "train": {"seed": seed}}  # fmt: skip
    scheduler = build_components(load_config(config, (), registry=registry), registry).scheduler
    assert isinstance(scheduler, Drawn)
    return scheduler.layer.weight.detach()


def test_weights_of_a_component_follow_from_the_seed(registry: Registry) -> None:
    torch.manual_seed(1)
    one = weights(registry, 0)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert torch.equal(weights(registry, 0), one)
    assert not torch.equal(weights(registry, 1), one)
    assert torch.equal(torch.get_rng_state(), before)


def test_they_are_not_those_of_the_model(registry: Registry) -> None:
    torch.manual_seed(0)
    assert not torch.equal(weights(registry, 0), nn.Linear(3, 3).weight)
