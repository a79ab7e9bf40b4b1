import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskedmodel.errors import DataError
from maskedmodel.sources.splits import named_split, rank, split_by_share, split_in_name, split_word, stratified

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


@pytest.mark.parametrize(
    ("name", "word"),
    [
        *[(name, "train") for name in ("train", "Training", "TRAIN", "trn", " train ", "train_images", "Train-Set")],
        *[(name, "train") for name in ("train2017", "training set", "trainset", "Training Data")],
        *[(name, "val") for name in ("val", "VAL", "Valid", "validation", "val2014", "validation_split", "validate")],
        *[(name, "test") for name in ("Test", "Testing", "test_set", "test1", "tst")],
        *[("dev", "dev"), ("Development", "dev"), ("eval", "eval"), ("Evaluation", "eval")],
        *[("holdout", "holdout"), ("hold-out", "holdout"), ("HELD_OUT", "holdout")],
        *[(name, None) for name in ("cat", "trainer", "trains", "latest", "contest", "", "2017", "train-val", "set")],
    ],
)
def test_words_for_splits_in_any_spelling(name, word):
    assert split_word(name) == word


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("data/train-00000-of-00002", "train"),
        ("Test", "test"),
        ("validation/part.0", "val"),
        ("test/train-0", "train"),  # the innermost part says it
        ("train_test", None),
        ("latest", None),
        ("cifar10_testing_01", "test"),
    ],
)
def test_words_for_splits_in_names_of_files(path, word):
    assert split_in_name(path) == word


def named(names, train=None, val=None, elsewhere=False):
    return named_split(names, train, val, "folders", "here", "set something", elsewhere)


def test_named_splits_are_taken_in_any_spelling():
    found = named(["Training", "Testing", "Training", "training "])
    assert (found.train, found.val) == ([0, 2, 3], [1])
    assert "Training (2)" in found.text
    assert found.notices == ()


def test_of_several_evaluation_splits_one_is_taken_and_told():
    names = ["train", "val", "test", "test", "Val"]
    found = named(names)
    assert (found.train, found.val) == ([0], [1, 4])
    assert found.notices == ("validation is Val (1) and val (1); left out: test (2) (data.val_split takes another)",)
    chosen = named(names, val="TEST")
    assert (chosen.train, chosen.val) == ([0], [2, 3])
    assert "left out: Val (1), val (1)" in chosen.notices[0]


def test_splits_and_other_names_are_asked_about():
    names = ["train", "test", "extra"]
    with pytest.raises(DataError, match=r"(?s)names are those of splits and others aren't.*extra.*set something"):
        named(names)
    found = named(names, train=("train", "extra"))
    assert (found.train, found.val) == ([0, 2], [1])
    found = named(names, val="test")
    assert (found.train, found.val, found.notices) == ([0], [1], ("left out: extra (1)",))


def test_no_split_to_train_on_is_asked_about():
    with pytest.raises(DataError, match="none to train on"):
        named(["val", "test"])
    assert named(["val", "test"], train=("val",)).train == [0]


def test_names_of_no_split_say_nothing_and_missing_ones_are_refused():
    assert named(["cat", "dog"]) is None
    assert named(["train", "train"]) is None
    with pytest.raises(DataError, match="no split called holdout"):
        named(["train", "val"], val="holdout")


def test_samples_without_a_split_are_left_out_and_told():
    found = named(["train", None, "val", ""])
    assert (found.train, found.val, found.notices) == ([0], [2], ("without a split, left out: 2",))


def test_train_alone_leaves_validation_to_a_share():
    found = named(["train2014", "train2017", None])
    assert (found.train, found.val) == ([0, 1], None)
    assert "a share of it" in found.text
