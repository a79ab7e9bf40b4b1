"""spans: the kit, exact counts, lengths as T5 divides them, and every token as likely to be hidden."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maskedmodel_masks.spans import Spans

from maskedmodel import Mask, Noise, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel.testing import parametrize_checks
from maskedmodel.tokens import hidden_count


@parametrize_checks([Spans, Spans(ratio=0.5, mean=1), Spans(ratio=0.75, mean=6.5)])
def test_conformance(check):
    check()


def line(batch: int, length: int, real: list[int] | None = None) -> Tokens:
    valid = None if real is None else torch.arange(length) < torch.tensor(real)[:, None]
    return Tokens(torch.zeros(batch, length, 1), torch.arange(length)[:, None], ("place",), (length,), None, valid)


def lengths(row: torch.Tensor) -> list[int]:
    return [len(list(run)) for hidden, run in groupby(row.tolist()) if hidden]


@given(
    length=st.integers(2, 90),
    shorter=st.integers(0, 88),
    ratio=st.floats(0.05, 0.95),
    mean=st.floats(1, 12),
    epoch=st.integers(0, 5),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_and_spans_as_many_as_asked_for(length, shorter, ratio, mean, epoch):
    real = [length, max(length - shorter, 2)]
    tokens = line(2, length, real)
    mask = Spans(ratio=ratio, mean=mean).sample(tokens, 0.0, Noise.of(range(2), epoch=epoch)).check()
    for row, count in zip(mask.hidden, real, strict=True):
        hidden = hidden_count(count, ratio)
        wanted = min(max(round(hidden / mean), 1), hidden, count - hidden)
        assert int(row[:count].sum()) == hidden
        ring = len(lengths(row[:count])) - int(bool(row[0] and row[count - 1]) and hidden < count)
        assert max(ring, 1) == wanted  # a span across the ends is one on the ring


def test_every_token_is_as_likely_and_lengths_have_their_mean():
    mask = Spans(ratio=0.3, mean=3).sample(line(6000, 50), 0.0, Noise.of(range(6000)))
    share = mask.hidden.float().mean(0)
    assert float((share - 0.3).abs().max()) < 0.025
    inner = mask.hidden[~(mask.hidden[:, 0] & mask.hidden[:, -1])]
    counts = Counter(length for row in inner for length in lengths(row))
    assert sum(length * count for length, count in counts.items()) / counts.total() == pytest.approx(3, abs=1e-6)
    assert counts[1] > counts[2] > counts[3] > counts[6] > 0


def test_all_divisions_are_as_likely():
    """Of 6 hidden tokens in 2 spans on a ring each first length from 1 to 5 is as likely."""
    mask = Spans(ratio=0.5, mean=3).sample(line(8000, 12), 0.0, Noise.of(range(8000)))
    inner = mask.hidden[~(mask.hidden[:, 0] & mask.hidden[:, -1])]
    firsts = Counter(lengths(row)[0] for row in inner)
    assert set(firsts) == {1, 2, 3, 4, 5}
    # A span of one is cut by the ends less often than one of five, so short and long together are compared.
    assert (firsts[1] + firsts[5]) / (firsts[2] + firsts[4]) == pytest.approx(1, abs=0.1)


def test_padding_and_gaps_are_passed_over():
    valid = torch.ones(1, 20, dtype=torch.bool)
    valid[0, 5:12] = False
    tokens = Tokens(torch.zeros(1, 20, 1), torch.arange(20)[:, None], ("place",), None, None, valid)
    mask = Spans(ratio=0.5, mean=4).sample(tokens, 0.0, Noise.of([3])).check()
    assert int(mask.hidden.sum()) == hidden_count(13, 0.5)
    assert not (mask.hidden & ~valid).any()


def test_a_sample_has_the_mask_it_has_alone():
    noise = Noise.of(["a", "b"])
    scheduler = Spans(ratio=0.4)
    both: Mask = scheduler.sample(line(2, 40, [40, 23]), 0.0, noise)
    alone: Mask = scheduler.sample(line(1, 23), 0.0, Noise.of(["b"]))
    assert torch.equal(both.hidden[1, :23], alone.hidden[0])


def test_several_axes_are_refused():
    tokens = Tokens(torch.zeros(1, 6, 1), torch.cartesian_prod(torch.arange(2), torch.arange(3)), ("a", "b"), (2, 3))
    with pytest.raises(ShapeError, match=r"(?s)one axis.*mask\.name=blocks"):
        Spans().sample(tokens, 0.0, Noise.of([0]))
