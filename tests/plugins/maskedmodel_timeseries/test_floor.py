"""Histories that are constant, nearly so or stepped: what follows them isn't blown up. And where windows begin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from maskedmodel_timeseries.raster import RasterTokenizer
from maskedmodel_timeseries.series import SeriesTokenizer
from maskedmodel_timeseries.windows import Csv, Parts

from maskedmodel.errors import DataError


def stepped(seed: int = 0) -> torch.Tensor:
    """100 windows (1, 64) of spread 1 that stand still for 48 steps, but for noise of 0.001, and then jump."""
    draw = torch.Generator().manual_seed(seed)
    level = torch.randn(100, 1, 1, generator=draw).expand(-1, -1, 48)
    still = level + 0.001 * torch.randn(100, 1, 48, generator=draw)
    return torch.cat([still, torch.randn(100, 1, 1, generator=draw).expand(-1, -1, 16)], -1)


def fitted(floor: float, variates: int = 1) -> SeriesTokenizer:
    tokenizer = SeriesTokenizer(length=64, patch=8, horizon=16, floor=floor, variates=variates)
    if tokenizer.needs_statistics:
        tokenizer.fit_statistics([tokenizer.prepare(stepped().expand(-1, variates, -1))])
    return tokenizer


def test_a_still_history_does_not_blow_up_what_follows() -> None:
    """Without a floor what follows is of the order of 1,000; with it within some spreads over the floor."""
    wild = fitted(0).prepare(stepped())[..., 48:]
    calm = fitted(0.1).prepare(stepped())[..., 48:]
    assert wild.abs().max() > 500
    assert calm.abs().max() < 10 * 5  # 5 spreads over a floor of a tenth
    assert torch.equal(calm.sign(), wild.sign())


def test_the_spread_is_that_of_all_training_values() -> None:
    data = torch.randn(3, 2, 40, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 0.5])[:, None] + 1000
    data[0, 0, :7] = torch.nan
    tokenizer = SeriesTokenizer(length=40, patch=8, variates=2)
    tokenizer.fit_statistics([data[:2], data[2:]])
    values = data.double().transpose(0, 1).flatten(1).numpy()
    assert tokenizer.spread.tolist() == pytest.approx(np.nanstd(values, axis=1).tolist(), rel=1e-5)
    one = SeriesTokenizer(length=40, patch=8)
    one.fit_statistics([data])
    assert float(one.spread[0]) == pytest.approx(float(np.nanstd(values)), rel=1e-5)


@pytest.mark.parametrize("level", [0.0, 5.0, 1e6])
def test_a_constant_history_is_finite(level: float) -> None:
    tokenizer = fitted(0.1)
    signal = torch.full((2, 1, 64), level)
    assert torch.equal(tokenizer.prepare(signal), torch.zeros(2, 1, 64))
    mean, spread = tokenizer.statistics_of(signal)
    assert float(mean[0, 0, 0]) == level
    assert float(spread[0, 0, 0]) == pytest.approx(0.1 * float(tokenizer.spread[0]))


def test_a_picture_after_a_still_history_has_a_floor_too() -> None:
    """The picture of what follows it lies within some spreads over the floor, and a usual history is untouched."""

    def drawn(signal: torch.Tensor, floor: float) -> torch.Tensor:
        own = RasterTokenizer(size=32, patch=8, period=8, horizon=16, floor=floor, channels=1)
        return own.prepare(signal)

    assert drawn(stepped(), 0).abs().max() > 100
    assert drawn(stepped(), 0.1).abs().max() < 0.4 * 10 * 5  # the spread in the picture, times 5 over a tenth
    usual = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(drawn(usual, 0), drawn(usual, 0.1))
    still = drawn(torch.full((2, 1, 64), 5.0), 0.1)
    assert torch.equal(still, torch.zeros_like(still))


def test_usual_histories_are_untouched() -> None:
    usual = torch.randn(4, 1, 64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(fitted(0.1).prepare(usual), fitted(0).prepare(usual), rtol=0, atol=0)


def test_unmeasured_spreads_are_refused() -> None:
    tokenizer = SeriesTokenizer(length=64, patch=8)
    with pytest.raises(DataError, match=r"tokenizer.floor=0"):
        tokenizer.tokenize(tokenizer.prepare(stepped()))


def weekly(folder: Path, rows: int = 60) -> str:
    frame = pd.DataFrame({"date": pd.date_range("2002-01-01", periods=rows, freq="W"), "ill": np.arange(rows) * 1.0})
    frame.to_csv(folder / "weekly.csv", index=False)
    return str(folder / "weekly.csv")


def test_validation_windows_reach_back_into_the_training_rows(tmp_path: Path) -> None:
    """As in the split of national_illness: the part for validation is shorter than history and horizon together."""
    split = Parts(train=40, val=10, test=10)
    with pytest.raises(DataError, match=r"data.reach"):
        Csv(path=weekly(tmp_path), window=20, split=split).open("val")
    source = Csv(path=weekly(tmp_path), window=20, split=split, reach=14, standardise=False)
    windows = [source.open("val")[index]["signal"][0].tolist() for index in range(len(source.open("val")))]
    assert windows[0] == list(range(26, 46))  # 14 rows of history before row 40, 6 of the part
    assert windows[-1] == list(range(30, 50))  # ends with the part
    assert max(max(source.open("train")[i]["signal"][0].tolist()) for i in range(len(source.open("train")))) == 39
