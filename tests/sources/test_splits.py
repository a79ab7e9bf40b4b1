import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedmodel.errors import DataError
from maskedmodel.sources.splits import rank, split_by_share, stratified

IDS = [f"images/{index}.png" for index in range(2000)]


def names(ids, split, share=0.1):
    return {ids[index] for index in split_by_share(ids, share, split, "here")}


def test_the_share_is_kept_and_nothing_is_lost():
    train, val = names(IDS, "train"), names(IDS, "val")
    assert train | val == set(IDS)
    assert not train & val
    assert 150 < len(val) < 250


def test_a_rank_is_the_same_in_every_process():
    assert rank("images/0.png") == pytest.approx(0.11676, abs=1e-5)


def test_adding_a_sample_moves_no_other():
    assert names(IDS[:-1], "val") == names(IDS, "val") - {IDS[-1]}


@given(st.sets(st.text(max_size=5), min_size=2, max_size=6), st.floats(0.01, 0.9))
@settings(deadline=None, max_examples=40)
def test_tiny_sets_have_a_validation_sample(ids, share):
    ids = sorted(ids)
    ranks = [rank(name) for name in ids]
    if max(ranks) < share:
        with pytest.raises(DataError, match="'train'"):
            names(ids, "train", share)
    else:
        assert names(ids, "train", share)
    assert names(ids, "val", share) == ({i for i in ids if rank(i) < share} or {min(ids, key=rank)})


def test_a_single_sample_cannot_be_split():
    with pytest.raises(DataError, match=r"(?s)Nothing is left.*where: here.*1 samples"):
        names(["alone"], "train")


def test_stratified_takes_the_same_share_of_each_class():
    labels = [index % 3 if index < 60 else 2 for index in range(100)]
    ids = list(range(100))
    val, train = stratified(labels, ids, 0.2, "val"), stratified(labels, ids, 0.2, "train")
    assert sorted(val + train) == ids
    assert [sum(labels[i] == label for i in val) for label in range(3)] == [4, 4, 12]
