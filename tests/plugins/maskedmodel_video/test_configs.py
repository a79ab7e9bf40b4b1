"""The configs that come with the package: they build, their data and tokens go together, and the counts are as said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from maskedmodel import MaskedAutoencoder, Noise
from maskedmodel.config.load import load_config
from maskedmodel.noise import seeded
from maskedmodel.plugins import load_registry
from tests.plugins.maskedmodel_video.conftest import write_video


def built(name: str, *overrides: str) -> tuple[Any, MaskedAutoencoder, Any]:
    registry = load_registry()
    config = load_config(name, overrides=list(overrides), registry=registry)
    tokenizer = registry.build("tokenizer", config.tokenizer)
    scheduler, objective = registry.build("mask_scheduler", config.mask), registry.build("objective", config.objective)
    with seeded(0):
        return config, MaskedAutoencoder(tokenizer, scheduler, objective, config.model), registry


@pytest.mark.parametrize(("name", "tokens", "visible"), [("video-quickstart", 128, 12), ("video-asl", 512, 48)])
def test_a_config_trains_on_its_data(tmp_path: Path, name: str, tokens: int, visible: int) -> None:
    overrides = ["data.train_samples=10"] if name == "video-quickstart" else [f"data.path={tmp_path}"]
    if name == "video-asl":
        for word in ("yes", "no", "eat"):
            write_video(tmp_path / f"{word}.mkv", 20)
    config, model, registry = built(name, *overrides)
    source = registry.build("data_source", config.data)
    samples = [source.open("train")[index] for index in range(2)]
    stored = torch.stack([sample["signal"] for sample in samples])
    noise = Noise.of([sample["id"] for sample in samples])
    output = model(model.tokenizer.augment(stored, noise), noise=noise)
    assert output.mask.ids_keep.shape == (2, visible)
    assert output.prediction.shape[1] == tokens - visible
    # The same places at every time.
    hidden = output.mask.hidden.unflatten(1, model.tokenizer.extents)
    assert torch.equal(hidden, hidden[:, :1].expand_as(hidden))
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_quickstart_can_be_probed_for_either_label() -> None:
    names = []
    for label in ("digit", "direction"):
        config, _, registry = built("video-quickstart", f"data.label={label}")
        names.append(registry.build("data_source", config.data).class_names())
    assert [len(classes) for classes in names] == [10, 8]
