"""Pictures of a run show signals as its own tokenizer prepares them, with what it measured before training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import maskedmodel
from maskedmodel.commands import pictures
from maskedmodel.plugins import load_registry


def test_reconstruct_normalises_as_the_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config: dict[str, Any] = {
        "data": {"name": "seasonal", "length": 32, "variates": 1, "train_samples": 32, "val_samples": 8},
        "tokenizer": {"name": "series", "length": 32, "patch": 8, "floor": 0.5},
        "model": {"encoder": {"dim": 8, "depth": 1, "heads": 1}, "decoder": {"dim": 8, "depth": 1, "heads": 1}},
        "train": {"steps": 1, "batch": 8, "precision": "fp32", "device": "cpu"},
        "evaluate": {"probe": False, "pictures": 0},
    }
    run = tmp_path / "run"
    maskedmodel.pretrain(config, run=run, quiet=True)
    drawn: list[Tensor] = []
    shown = pictures.draw
    monkeypatch.setattr(
        pictures, "draw", lambda model, signals, *rest: (drawn.append(signals), shown(model, signals, *rest))
    )
    maskedmodel.reconstruct(run, count=8)
    model = maskedmodel.load(run)
    source = load_registry().get("data_source", "seasonal")(**config["data"])
    stored = torch.stack([source.open("val")[index]["signal"] for index in range(8)])
    assert not model.tokenizer.needs_statistics
    torch.testing.assert_close(drawn[0], model.tokenizer.prepare(stored))
    assert not torch.allclose(drawn[0], stored, atol=0.1)
