"""A table with two seasons in a temporary folder, and small models of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from maskedmodel_objectives.patch import Patch
from maskedmodel_timeseries.horizon import Horizon
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.series import SeriesTokenizer

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import seeded
from maskedmodel.weights.runs import save

SMALL = ModelSettings(
    encoder=EncoderSettings(dim=32, depth=2, heads=4), decoder=DecoderSettings(dim=32, depth=1, heads=4)
)


def hourly(rows=480, seed=0):
    """A frame of two variates with a daily season, hour by hour."""
    draw, time = np.random.default_rng(seed), np.arange(rows)
    season = np.sin(2 * np.pi * time / 24)
    return pd.DataFrame(
        {
            "date": pd.date_range("2021-03-01", periods=rows, freq="h"),
            "load": 50 + 10 * season + draw.normal(size=rows),
            "heat": 3 - season + 0.1 * draw.normal(size=rows),
        }
    )


def build(tokenizer, seed=0, normalise=False):
    """A model with random weights, heads that aren't near zero, in evaluation mode."""
    with seeded(seed):
        model = MaskedAutoencoder(tokenizer, Horizon(), Patch(normalise=normalise), SMALL)
        for weight in model.parameters():
            if weight.requires_grad and weight.dim() > 1:
                weight.data += 0.05 * torch.randn(weight.shape)
    return model.eval()


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "hourly.csv"
    hourly().to_csv(path, index=False)
    return path


@pytest.fixture
def series_model():
    return build(SeriesTokenizer(floor=0, length=96, patch=8, horizon=24))


@pytest.fixture
def raster_model():
    return build(RasterTokenizer(size=32, patch=8, channels=1, period=24, align_constant=1.0))


@pytest.fixture
def run(tmp_path, series_model):
    """The folder of a run with random weights."""
    return save(series_model, tmp_path / "run")
