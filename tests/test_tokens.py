from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskedmodel.errors import ShapeError
from maskedmodel.noise import Noise
from maskedmodel.tokens import Mask, Tokens, hidden_count

few = settings(max_examples=40, deadline=None)
ratios = st.floats(0.01, 0.99)


def tokens(batch: int = 2, length: int = 6, **changes: object) -> Tokens:
    given: dict[str, object] = {
        "values": torch.arange(batch * length * 3.0).reshape(batch, length, 3),
        "coords": torch.arange(length)[:, None],
        "axes": ("time",),
        **changes,
    }
    return Tokens(**given)  # type: ignore[arg-type]


def scores(batch: int, length: int, seed: int = 0) -> Tensor:
    return Noise.of(range(batch), seed=seed).uniform(length)


# Tokens


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("values", (2, 6)),
        ("coords", (6, 2)),
        ("coords", (3, 6, 1)),
        ("channel", (2,)),
        ("valid", (6,)),
        ("valid", (2, 5)),
        ("channel_features", (6,)),
        ("channel_features", (5, 2)),
        ("channel_features", (3, 6, 2)),
    ],
)
def test_wrong_shapes_are_refused_with_numbers(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as error:
        tokens(**{name: torch.zeros(shape)})
    assert str(shape) in str(error.value)


def test_rows_of_tokens() -> None:
    shared = tokens(4, channel=torch.arange(6), valid=torch.rand(4, 6) > 0.5)
    some = shared.rows(slice(1, 3))
    assert (some.batch, some.length) == (2, 6)
    assert torch.equal(some.values, shared.values[1:3])
    assert some.coords is shared.coords
    assert some.channel is shared.channel
    assert shared.valid is not None
    assert some.valid is not None
    assert torch.equal(some.valid, shared.valid[1:3])
    own = tokens(4, coords=torch.rand(4, 6, 1), channel=torch.arange(24).reshape(4, 6))
    part = own.rows(slice(2, 4))
    assert torch.equal(part.coords, own.coords[2:])
    assert own.channel is not None
    assert part.channel is not None
    assert torch.equal(part.channel, own.channel[2:])
    assert part.valid is None
    shared = tokens(4, channel_features=torch.rand(6, 3))
    assert shared.rows(slice(1, 3)).channel_features is shared.channel_features
    own = tokens(4, channel_features=torch.rand(4, 6, 3))
    assert own.channel_features is not None
    assert torch.equal(own.rows(torch.tensor([2, 0])).channel_features, own.channel_features[[2, 0]])
    assert own.layout.channel_features is own.channel_features


# How many are hidden


@few
@given(length=st.integers(0, 300), ratio=st.floats(0, 1))
def test_hidden_count_leaves_something_and_hides_something(length: int, ratio: float) -> None:
    hidden = hidden_count(length, ratio)
    if length < 2:
        assert hidden == 0
    else:
        assert 1 <= hidden <= length - 1
        assert abs(hidden - ratio * length) <= 1


@few
@given(length=st.integers(2, 300), ratio=ratios)
def test_hidden_count_grows_with_both(length: int, ratio: float) -> None:
    assert hidden_count(length, ratio) <= hidden_count(length + 1, ratio)
    assert length - hidden_count(length, ratio) <= length + 1 - hidden_count(length + 1, ratio)
    assert hidden_count(length, ratio) <= hidden_count(length, min(ratio + 0.1, 1.0))


def test_hidden_count_of_the_published_sizes() -> None:
    assert hidden_count(196, 0.75) == 147
    assert hidden_count(196, 0.9) == 176
    assert hidden_count(10, 0.9) == 9
    assert hidden_count(10, 0.25) == 2  # half to even


# Masks


def held(mask: Mask) -> None:
    """What every mask promises, read off its values."""
    mask.check()
    real = torch.ones_like(mask.hidden) if mask.valid is None else mask.valid
    assert torch.equal(mask.visible, real & ~mask.hidden)
    for ids, entries, chosen in (
        (mask.ids_keep, mask.keep_valid, mask.visible),
        (mask.ids_hidden, mask.hidden_valid, mask.hidden),
    ):
        for row in range(ids.shape[0]):
            listed = ids[row] if entries is None else ids[row][entries[row]]
            assert listed.tolist() == chosen[row].nonzero()[:, 0].tolist()  # all of them, once, in raster order
    assert mask.scored == int(mask.hidden.sum())


@few
@given(batch=st.integers(1, 4), length=st.integers(2, 40), ratio=ratios, seed=st.integers(0, 99))
def test_masks_of_whole_rows(batch: int, length: int, ratio: float, seed: int) -> None:
    mask = Mask.from_scores(scores(batch, length, seed), ratio)
    held(mask)
    assert (mask.hidden.sum(1) == hidden_count(length, ratio)).all()
    assert mask.keep_valid is None
    assert mask.hidden_valid is None
    assert mask.ids_hidden.shape[1] == hidden_count(length, ratio)


@few
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=4), ratio=ratios, seed=st.integers(0, 99))
def test_masks_of_padded_rows(lengths: list[int], ratio: float, seed: int) -> None:
    width = max(lengths) + seed % 3
    valid = torch.arange(width) < torch.tensor(lengths)[:, None]
    mask = Mask.from_scores(scores(len(lengths), width, seed), ratio, valid)
    held(mask)
    for row, length in enumerate(lengths):
        assert int(mask.hidden[row].sum()) == hidden_count(length, ratio)
        alone = Mask.from_scores(scores(len(lengths), width, seed)[row : row + 1, :length], ratio)
        assert torch.equal(mask.hidden[row, :length], alone.hidden[0])
        assert not mask.hidden[row, length:].any()


def test_padded_rows_are_rounded_as_whole_ones() -> None:
    """45 * 0.7 is 31.499999999999996 in float64, and 31.5 in float32."""
    mask = Mask.from_scores(scores(1, 50), 0.7, torch.arange(50)[None] < 45)
    held(mask)
    assert int(mask.hidden.sum()) == hidden_count(45, 0.7) == 31


@few
@given(counts=st.lists(st.integers(-3, 30), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_masks_with_a_count_for_each_row(counts: list[int], seed: int) -> None:
    mask = Mask.from_scores(scores(len(counts), 9, seed), 0.5, None, torch.tensor(counts))
    held(mask)
    assert mask.hidden.sum(1).tolist() == [min(max(count, 1), 8) for count in counts]


def test_the_highest_scores_are_hidden_and_ties_go_to_the_first() -> None:
    mask = Mask.from_scores(torch.tensor([[0.1, 0.9, 0.5, 0.7], [1.0, 1.0, 1.0, 1.0]]), 0.5)
    assert mask.hidden.tolist() == [[False, True, False, True], [True, True, False, False]]
    assert mask.ids_keep.tolist() == [[0, 2], [2, 3]]
    assert mask.ids_hidden.tolist() == [[1, 3], [0, 1]]


def test_uneven_rows_are_filled_up() -> None:
    mask = Mask(torch.tensor([[True, False, False, False], [True, True, False, True]]))
    assert mask.ids_keep.shape == (2, 3)
    assert mask.ids_hidden.shape == (2, 3)
    assert mask.keep_valid is not None
    assert mask.hidden_valid is not None
    assert mask.keep_valid.tolist() == [[True] * 3, [True, False, False]]
    assert mask.hidden_valid.tolist() == [[True, False, False], [True] * 3]
    assert mask.scored == 4


def test_a_mask_by_hand_that_is_even_needs_no_filling() -> None:
    mask = Mask(torch.tensor([[True, False, True], [False, True, True]]))
    assert mask.keep_valid is None
    assert mask.ids_hidden.tolist() == [[0, 2], [1, 2]]


def test_nothing_hidden() -> None:
    valid = torch.tensor([[True, True, False], [True, True, True]])
    whole, padded = Mask.nothing(tokens(length=3)), Mask.nothing(tokens(length=3, valid=valid))
    assert whole.ids_keep.tolist() == [[0, 1, 2]] * 2
    assert whole.keep_valid is None
    assert whole.ids_hidden.shape == (2, 0)
    assert torch.equal(padded.visible, valid)
    assert padded.keep_valid is not None
    assert padded.keep_valid.tolist() == [[True, True, False], [True] * 3]


def test_an_even_mask_is_used_without_reading_a_value() -> None:
    """A tensor on the meta device has no values: whatever would make a GPU wait fails here."""
    mask = Mask.from_scores(torch.empty(3, 16, device="meta"), 0.75)
    assert (mask.ids_keep.shape, mask.ids_hidden.shape) == ((3, 4), (3, 12))
    assert mask.keep_valid is None
    assert mask.hidden_valid is None
    assert mask.scored == 36
    assert mask.rows(slice(0, 2)).ids_hidden.shape == (2, 12)
    padded = Mask.from_scores(
        torch.empty(3, 16, device="meta"), 0.75, torch.empty(3, 16, device="meta", dtype=torch.bool)
    )
    assert padded.ids_hidden.shape == (3, 12)
    assert padded.hidden_valid is not None
    assert padded.hidden_valid.shape == (3, 12)


def test_rows_of_a_mask() -> None:
    valid = torch.arange(8) < torch.tensor([[8], [5], [8]])
    mask = Mask.from_scores(scores(3, 8), 0.5, valid)
    part = mask.rows(slice(1, 3))
    held(part)
    assert torch.equal(part.hidden, mask.hidden[1:3])
    assert torch.equal(part.ids_hidden, mask.ids_hidden[1:3])


@pytest.mark.parametrize(
    "hidden", [torch.zeros(2, 3), torch.zeros(6, dtype=torch.bool), torch.zeros(1, 2, 3, dtype=torch.bool)]
)
def test_only_a_table_of_bools_is_a_mask(hidden: Tensor) -> None:
    with pytest.raises(ShapeError, match="True = hidden"):
        Mask(hidden)


def test_valid_must_fit() -> None:
    with pytest.raises(ShapeError, match=r"Mask\.valid"):
        Mask(torch.zeros(2, 3, dtype=torch.bool), torch.ones(2, 4, dtype=torch.bool))


@pytest.mark.parametrize(
    ("hidden", "valid", "words"),
    [
        ([[True, False], [False, False]], None, "Row 1 of the mask hides nothing"),
        ([[True, False], [True, True]], None, "Row 1 of the mask hides everything"),
        ([[True, False, True]], [[True, True, False]], "Row 0 of the mask hides padding"),
        ([[True, False, False]], [[True, False, False]], "Row 0 of the mask hides everything"),
    ],
)
def test_check_names_the_row(hidden: list[list[bool]], valid: list[list[bool]] | None, words: str) -> None:
    with pytest.raises(ShapeError, match=words):
        Mask(torch.tensor(hidden), None if valid is None else torch.tensor(valid)).check()
