"""A forecast head: the conformance kit, errors by hand, and the same numbers from fine-tuning and from `forecast`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from maskedmodel_timeseries.forecasting import forecast_table
from maskedmodel_timeseries.head import Forecast
from maskedmodel_timeseries.series import SeriesTokenizer
from maskedmodel_timeseries.windows import Csv, Parts

import maskedmodel
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.tasks import Labels
from maskedmodel.testing import parametrize_checks


@parametrize_checks([Forecast, Forecast(loss="absolute")])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def test_missing_values_of_a_horizon_count_for_nothing() -> None:
    task = Forecast()
    prediction = torch.zeros(2, 1, 3, requires_grad=True)
    target = torch.tensor([[[1.0, torch.nan, 3.0]], [[torch.nan] * 3]])
    assert task.loss(prediction, target).tolist() == [5.0, 0.0]
    assert task.weight(target).tolist() == [2, 0]
    (task.loss(prediction, target) * task.weight(target)).sum().backward()
    assert prediction.grad is not None
    assert not prediction.grad[target.isnan()].any()
    assert task.metrics(*task.digest(prediction.detach(), target)) == {"MSE": 5.0, "MAE": 2.0}


def test_a_target_is_normalised_by_its_history_alone() -> None:
    tokenizer = SeriesTokenizer(length=8, patch=4, floor=0.0)
    stored = torch.randn(3, 1, 8) * 5 + 10
    target = torch.randn(3, 1, 4) * 100
    moved = tokenizer.move_target(target, stored)
    mean, std = stored.mean(2, keepdim=True), stored.std(2, keepdim=True, correction=0)
    torch.testing.assert_close(moved, (target - mean) / std, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(Forecast().restore(tokenizer, moved, stored), target, rtol=1e-4, atol=1e-3)


def test_the_tokenizers_own_horizon_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"(?s)tokenizer.horizon.*Set tokenizer.horizon=0"):
        Forecast().attach(SeriesTokenizer(length=16, patch=4, horizon=4), 8, Labels((), (), (1, 4)))
    with pytest.raises(ConfigError, match="nothing to forecast"):
        Forecast().attach(SeriesTokenizer(length=16, patch=4), 8, Labels(("a",), (1,)))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    time = np.arange(400)
    draw = np.random.default_rng(0)
    frame = {"date": pd.date_range("2020-01-01", periods=400, freq="h")}
    for number, name in enumerate(("load", "heat")):
        frame[name] = 50 + 10 * np.sin(time / 12 * np.pi + number) + draw.normal(size=400)
    path = tmp_path / "table.csv"
    pd.DataFrame(frame).to_csv(path, index=False)
    return path


def test_windows_give_history_and_horizon(table: Path) -> None:
    given = {"path": str(table), "window": 30, "split": Parts(train=250, val=70, test=80)}
    whole, cut = Csv(**given).open("train"), Csv(**given, horizon=6).open("train")
    assert len(whole) == len(cut)
    sample = cut[7]
    assert torch.equal(torch.cat([sample["signal"], sample["target"]], 1), whole[7]["signal"])
    assert sample["target"].shape == (2, 6)
    last = Csv(**given, horizon=6).read(table)
    assert "target" not in last
    assert last["signal"].shape == (2, 24)
    with pytest.raises(ValueError, match="leaves no history"):
        Csv(**{**given, "window": 6}, horizon=6)


@pytest.mark.parametrize("variates", ["separate", "together"])
def test_fine_tuning_and_forecast_measure_the_same(table: Path, tmp_path: Path, variates: str) -> None:
    """The validation of a run whose validation part is the test part, and `maskedmodel forecast` on that part."""
    config = {
        "data": {
            **{"name": "csv", "path": str(table), "window": 30, "horizon": 6, "variates": variates, "reach": 24},
            "split": {"train": 250, "val": 150, "test": 0},
        },
        "tokenizer": {
            **{"name": "series", "length": 24, "patch": 6},
            "variates": 1 if variates == "separate" else 2,
        },
        "task": {"name": "forecast"},
        "model": {"encoder": {"dim": 16, "depth": 1, "heads": 2}},
        "optim": {"lr": 0.003, "per_batch": None},
        "train": {"steps": 60, "batch": 32, "precision": "fp32", "device": "cpu"},
    }
    found = maskedmodel.finetune(config, run=tmp_path / "run", quiet=True).adapted.judged
    assert found.score == "MSE"
    told = forecast_table(tmp_path / "run", table, horizon=6, test_rows=150, quiet=True)
    assert told.context == 24
    model = next(score for score in told.scores if score.name == "model")
    assert model.mse == pytest.approx(found.metrics["MSE"].value, rel=1e-3)
    assert model.mae == pytest.approx(found.metrics["MAE"].value, rel=1e-3)
    naive = next(score for score in told.scores if score.name == "last value")
    assert model.mse < 0.5 * naive.mse
    with pytest.raises(ShapeError, match="trained for other forecasts"):
        forecast_table(tmp_path / "run", table, horizon=7, test_rows=150, quiet=True)
    rows = maskedmodel.predict(tmp_path / "run", "val", to=tmp_path / "out.csv", quiet=True)
    assert rows.maps is None
    first = (tmp_path / "out.csv").read_text().splitlines()[0].split(",")
    assert len(first) == 1 + (6 if variates == "separate" else 12)
