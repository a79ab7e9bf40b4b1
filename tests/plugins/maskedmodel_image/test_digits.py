import pickle

import pytest
import torch
from maskedmodel_image.digits import Digits
from torch.utils.data import DataLoader


def test_splits_are_disjoint_and_hold_the_same_share_of_each_digit():
    source = Digits()
    train, val = source.open("train"), source.open("val")
    assert (len(train), len(val)) == (1438, 359)
    assert not set(train.ids) & set(val.ids)
    assert source.class_names() == list("0123456789")
    for digit in range(10):
        share = val.labels.count(digit) / (val.labels.count(digit) + train.labels.count(digit))
        assert share == pytest.approx(0.2, abs=0.005)


def test_samples_are_grey_pictures_between_zero_and_one():
    sample = Digits(size=24).open("val")[3]
    assert sample["signal"].shape == (1, 24, 24)
    assert sample["signal"].dtype == torch.float32
    assert 0 <= sample["signal"].min() < sample["signal"].max() <= 1
    assert sample["label"] in range(10)


def test_at_their_own_size_they_are_the_stored_levels():
    signal = Digits(size=8).open("train")[0]["signal"]
    assert torch.equal(signal * 16, (signal * 16).round())


def test_batches_through_a_worker_and_a_pickle():
    val = pickle.loads(pickle.dumps(Digits().open("val")))  # noqa: S301
    batch = next(iter(DataLoader(val, batch_size=8, num_workers=1)))
    assert batch["signal"].shape == (8, 1, 16, 16)
    assert torch.equal(batch["signal"][5], Digits().open("val")[5]["signal"])
