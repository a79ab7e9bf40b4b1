import numpy as np
import pytest
import torch
from maskedmodel_timeseries.period import find_period
from maskedmodel_timeseries.seasonal import RULES, Seasonal
from pydantic import ValidationError


def test_a_series_is_a_function_of_its_number_and_the_seed():
    train = Seasonal(length=64).open("train")
    assert torch.equal(train[5]["signal"], Seasonal(length=64).open("train")[5]["signal"])
    assert not torch.equal(train[5]["signal"], Seasonal(length=64, seed=1).open("train")[5]["signal"])
    # More series change none that were there.
    assert torch.equal(train[5]["signal"], Seasonal(length=64, train_samples=8).open("train")[5]["signal"])


def test_kinds_are_labelled_and_as_many_of_each():
    source = Seasonal(length=64, train_samples=70, val_samples=14)
    labels = [source.open("train")[index]["label"] for index in range(70)]
    assert source.class_names() == list(RULES)
    assert np.bincount(labels).tolist() == [10] * 7
    assert source.open("train")[0]["signal"].shape == (3, 64)


def test_seasons_have_a_period_and_trends_none():
    source = Seasonal(length=512, noise=0.05)
    data, names = source.open("train"), source.class_names()
    found = {name: [] for name in names}
    for index in range(84):
        sample = data[index]
        found[names[sample["label"]]].append(find_period(sample["signal"].numpy()) > 1)
    assert np.mean(found["season"]) >= 0.75
    assert np.mean(found["trend"]) <= 0.1


def test_seasons_have_the_periods_asked_for():
    data = Seasonal(length=256, noise=0.0, periods=(17,)).open("train")
    named = list(RULES).index("season")
    found = [find_period(data[index]["signal"].numpy()) for index in range(70) if data[index]["label"] == named]
    # The second or third harmonic may be much stronger than the first.
    assert found.count(17) >= 7
    with pytest.raises(ValidationError, match="4 steps or more"):
        Seasonal(periods=(3,))


def test_gaps_cover_the_share_asked_for():
    signal = Seasonal(length=100, missing=0.25).open("train")[3]["signal"]
    assert signal.isnan().sum(1).tolist() == [25, 25, 25]
