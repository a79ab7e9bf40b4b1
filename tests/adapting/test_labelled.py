"""Parts of the labelled samples: shares, nesting, and the same choice on every machine."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedmodel.errors import DataError
from maskedmodel.training.data import UNLABELLED, Reading
from maskedmodel.training.labelled import labels_of, nested, wanted_count
from tests.adapting.conftest import Told


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(0, 5))
def test_every_beginning_holds_classes_in_their_shares(strata: list[int], seed: int) -> None:
    order = nested(strata, [f"s{i}" for i in range(len(strata))], seed)
    assert sorted(order) == list(range(len(strata)))
    total, seen = Counter(strata), Counter()
    for done, place in enumerate(order, 1):
        seen[strata[place]] += 1
        if done <= len(total):
            assert len(seen) == done  # each class has one before any has two
        for label, count in total.items():
            assert abs(seen[label] - done * count / len(strata)) < len(total)


def test_another_seed_chooses_others_and_the_same_the_same() -> None:
    ids = [f"s{i}" for i in range(100)]
    assert nested([0] * 100, ids, 0) == nested([0] * 100, ids, 0)
    assert nested([0] * 100, ids, 0)[:10] != nested([0] * 100, ids, 1)[:10]
    backwards = nested([0] * 100, ids[::-1], 0)
    assert [ids[::-1][place] for place in backwards] == [ids[place] for place in nested([0] * 100, ids, 0)]


def test_numbers_and_shares_of_labels() -> None:
    assert wanted_count(None, 50) == 50
    assert wanted_count(7, 50) == 7
    assert wanted_count("10%", 50) == 5
    assert wanted_count("0.1%", 50) == 1
    assert wanted_count("100%", 50) == 50
    with pytest.raises(DataError, match="fewer labelled training samples"):
        wanted_count(51, 50)
    with pytest.raises(DataError, match="at most 50"):
        wanted_count("101%", 50)


def test_labels_are_read_off_the_data_set_or_its_samples() -> None:
    dataset = Told(count=5, unlabelled=(3,)).open("train")
    expected = ([0, 1, 0, UNLABELLED, 0], [f"train-{i}" for i in range(5)])
    assert labels_of(dataset, Reading()) == expected
    dataset.labels, dataset.ids = [0, 1, 0, None, 0], expected[1]
    dataset.__class__ = type("Quick", (type(dataset),), {"__getitem__": lambda *_: pytest.fail("a sample was read")})
    assert labels_of(dataset, Reading()) == expected


def test_a_broken_sample_has_no_label_where_it_may_be_skipped() -> None:
    dataset = Told(count=5, broken=(1,)).open("train")
    assert labels_of(dataset, Reading(on_bad_sample="skip"))[0] == [0, UNLABELLED, 0, 1, 0]
    with pytest.raises(DataError, match="can't be read"):
        labels_of(dataset, Reading())
