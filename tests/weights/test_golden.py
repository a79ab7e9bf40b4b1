"""A run of the first release: later versions load it, score what it scored, and go on training it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import maskedmodel
from maskedmodel.config.build import build_components
from maskedmodel.config.load import load_config
from maskedmodel.plugins import load_registry
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import validation_loss
from maskedmodel.training.tracking import read_lines

GOLDEN = sorted((Path(__file__).parent / "golden").iterdir())


@pytest.mark.parametrize("run", GOLDEN, ids=lambda run: run.name)
def test_it_loads_and_scores_what_it_scored(run: Path) -> None:
    registry = load_registry()
    config = load_config(run / "config.yaml", registry=registry)
    model = maskedmodel.load(run)
    data = build_components(config, registry).source.open("val")
    scored = [line["val_loss"] for line in read_lines(run / "metrics.jsonl") if "val_loss" in line][-1]
    loss = validation_loss(model, data, config.train, World(0, 1, torch.device("cpu")))
    assert loss == pytest.approx(scored, rel=1e-5)


@pytest.mark.parametrize("run", GOLDEN, ids=lambda run: run.name)
def test_it_goes_on(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    result = maskedmodel.pretrain(folder / "config.yaml", run=folder, overrides=["train.steps=8"], quiet=True)
    assert result is not None
    assert result.training.steps == 8
    kept = [line["step"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
    assert kept == list(range(1, 9))
