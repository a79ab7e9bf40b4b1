import numpy as np
import pytest
import torch
from maskedmodel_timeseries.windows import Csv, ParquetTable, Parts
from pydantic import ValidationError

from maskedmodel.errors import DataError

from .conftest import hourly


def test_windows_lie_within_their_part_and_hold_the_rows_their_ids_name(csv):
    source = Csv(path=str(csv), window=24, stride=5, split=Parts(train=300, val=100, test=80), standardise=False)
    values = hourly()[["load", "heat"]].to_numpy().T
    for split, first, last in (("train", 0, 300), ("val", 300, 400)):
        dataset = source.open(split)
        assert len(dataset) == (last - first - 24) // 5 + 1
        for index in (0, 3, len(dataset) - 1):
            sample = dataset[index]
            start = int(str(sample["id"]).removeprefix("hourly.csv@"))
            assert first <= start <= last - 24
            np.testing.assert_allclose(sample["signal"], values[:, start : start + 24], rtol=1e-6)


def test_separate_variates_are_samples_of_their_own_with_their_names_in_the_id(csv):
    source = Csv(path=str(csv), window=24, stride=24, variates="separate", standardise=False)
    dataset = source.open("train")
    assert len(dataset) == 2 * len(Csv(path=str(csv), window=24, stride=24).open("train"))
    ids = [dataset[index]["id"] for index in range(len(dataset))]
    assert len(set(ids)) == len(ids)
    assert ids[:2] == ["hourly.csv/load@0", "hourly.csv/heat@0"]
    np.testing.assert_allclose(dataset[1]["signal"][0], hourly().heat[:24], rtol=1e-6)


def test_values_are_standardised_by_the_training_part_alone(tmp_path):
    frame = hourly()
    frame.loc[336:, "load"] += 1000  # after the training part
    frame.to_csv(tmp_path / "a.csv", index=False)
    source = Csv(path=str(tmp_path / "a.csv"), window=336)
    signal = source.open("train")[0]["signal"]
    torch.testing.assert_close(signal.mean(1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(signal.std(1, correction=0), torch.ones(2), atol=1e-5, rtol=0)


def test_windows_with_too_few_values_are_left_out(tmp_path):
    frame = hourly(100)
    frame.loc[20:59, "load"] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False)
    options = {"path": str(tmp_path / "a.csv"), "window": 10, "split": Parts(train=90, val=10, test=0)}
    starts = {"load": [], "heat": []}
    dataset = Csv(**options, variates="separate").open("train")
    for index in range(len(dataset)):
        name, _, start = str(dataset[index]["id"]).removeprefix("a.csv/").partition("@")
        starts[name].append(int(start))
    assert starts["heat"] == list(range(81))
    assert starts["load"] == [start for start in range(81) if start <= 15 or start >= 55]
    together = Csv(**options, observed=1.0).open("train")
    assert len(together) == 11 + 21


def test_the_ett_split_in_rows_and_in_shares():
    assert Parts(train=8640, val=2880, test=2880).bounds(17420, "x") == (8640, 11520, 14400)
    assert Parts().bounds(1000, "x") == (700, 800, 1000)
    with pytest.raises(DataError, match="14400 rows or more"):
        Parts(train=8640, val=2880, test=2880).bounds(14399, "x")
    for wrong in ({"train": 0.7, "val": 100, "test": 0.2}, {"train": 0.9, "val": 0.2, "test": 0.2}, {"train": 1.5}):
        with pytest.raises(ValidationError, match=r"shares|rows"):
            Parts(**wrong)


def test_a_window_longer_than_a_part_is_refused(csv):
    with pytest.raises(DataError, match="No window of 60 steps lies in the part 'val'"):
        Csv(path=str(csv), window=60).open("val")


def test_another_file_is_read_as_its_last_window(tmp_path, csv):
    hourly(200, seed=3).to_csv(tmp_path / "other.csv", index=False)
    sample = Csv(path=str(csv), window=24, standardise=False).read(tmp_path / "other.csv")
    assert sample["id"] == "other.csv@176"
    np.testing.assert_allclose(sample["signal"][0], hourly(200, seed=3).load[-24:], rtol=1e-6)
    with pytest.raises(DataError, match="shorter than a window"):
        Csv(path=str(csv), window=240).read(tmp_path / "other.csv")


def test_each_source_knows_its_files(tmp_path, csv):
    hourly().to_parquet(tmp_path / "a.parquet")
    import pandas as pd

    pd.DataFrame({"image": [b"1", b"2"], "label": [0, 1]}).to_parquet(tmp_path / "images.parquet")
    assert Csv.recognises(csv)
    assert not Csv.recognises(tmp_path)
    assert not Csv.recognises(tmp_path / "a.parquet")
    assert ParquetTable.recognises(tmp_path / "a.parquet")
    assert not ParquetTable.recognises(tmp_path / "images.parquet")
    assert not ParquetTable.recognises(csv)
    with pytest.raises(DataError, match="'table' doesn't read such a file"):
        ParquetTable(path=str(csv)).open("train")
