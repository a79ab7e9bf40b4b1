"""uniform and ramped: the conformance kit, then their ratios."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from maskedmodel_masks.uniform import Ramped, Uniform
from pydantic import ValidationError

from maskedmodel import Noise, Tokens
from maskedmodel.testing import parametrize_checks

RATIO = st.floats(0.01, 0.99)


@parametrize_checks([Uniform, Uniform(ratio=0.05), Ramped, Ramped(start=0.9, end=0.3, shape="cosine", levels=2)])
def test_conformance(check: Callable[[], None]) -> None:
    check()


def line(batch: int, length: int) -> Tokens:
    return Tokens(torch.zeros(batch, length, 1), torch.arange(length)[:, None], ("time",), grid=(length,))


@given(ratio=RATIO, progress=st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_uniform_is_constant(ratio: float, progress: float) -> None:
    assert Uniform(ratio=ratio).ratio(progress) == ratio


def test_the_defaults_are_those_of_the_papers() -> None:
    assert Uniform().ratio(0.3) == 0.75
    assert (Ramped().ratio(0), Ramped().ratio(1)) == (0.60, 0.85)


def test_uniform_hides_every_token_as_often() -> None:
    tokens = line(4000, 8)
    hidden = Uniform(ratio=0.5).sample(tokens, 0.0, Noise.of(range(4000))).hidden
    assert hidden.sum(1).unique().tolist() == [4]
    # The share of 4,000 draws has a standard deviation of 0.008.
    torch.testing.assert_close(hidden.float().mean(0), torch.full((8,), 0.5), atol=0.04, rtol=0)


def test_uniform_hides_every_pair_as_often() -> None:
    hidden = Uniform(ratio=0.5).sample(line(4000, 4), 0.0, Noise.of(range(4000))).hidden
    sets = (hidden.long() * torch.tensor([1, 2, 4, 8])).sum(1)
    shares = [float((sets == chosen).float().mean()) for chosen in (3, 5, 6, 9, 10, 12)]
    assert shares == pytest.approx([1 / 6] * 6, abs=0.03)


@given(start=RATIO, end=RATIO, shape=st.sampled_from(["linear", "cosine"]), levels=st.integers(2, 50))
@settings(deadline=None, max_examples=30)
def test_a_ramp_meets_its_ends_and_never_turns_back(start: float, end: float, shape: str, levels: int) -> None:
    assume(start == end or abs(end - start) > 1e-6)  # else the levels between them are the same numbers
    ramp = Ramped(start=start, end=end, shape=shape, levels=levels)
    path = [ramp.ratio(step / 200) for step in range(201)]
    assert path[0] == start
    assert path[-1] == pytest.approx(end, abs=1e-12)
    assert path == sorted(path, reverse=end < start)
    assert len(set(path)) == (levels if start != end else 1)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_half_way_is_the_middle(shape: str) -> None:
    assert Ramped(start=0.6, end=0.8, shape=shape, levels=3).ratio(0.5) == pytest.approx(0.7)


def test_linear_keeps_an_even_pace() -> None:
    ramp = Ramped(start=0.2, end=0.6, levels=5)
    assert [ramp.ratio(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6])


def test_cosine_is_slow_at_both_ends() -> None:
    ramp = Ramped(start=0.2, end=0.6, shape="cosine", levels=10_001)
    for progress in (0.1, 1 / 3, 0.8):
        expected = 0.2 + 0.4 * (1 - math.cos(math.pi * progress)) / 2
        assert ramp.ratio(progress) == pytest.approx(expected, abs=0.4 / 10_000)
    assert ramp.ratio(0.1) < 0.2 + 0.4 * 0.1


@pytest.mark.parametrize("progress", [-0.5, 1.5])
def test_progress_outside_the_run_stays_at_its_ends(progress: float) -> None:
    assert Ramped(start=0.3, end=0.7).ratio(progress) == (0.3 if progress < 0 else pytest.approx(0.7))


@pytest.mark.parametrize("build", [lambda r: Uniform(ratio=r), lambda r: Ramped(start=r), lambda r: Ramped(end=r)])
@pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5, math.nan])
def test_a_ratio_that_hides_nothing_or_everything_is_refused(build: Callable[[float], object], ratio: float) -> None:
    with pytest.raises(ValidationError, match=r"greater than 0|less than 1"):
        build(ratio)


def test_one_level_is_no_ramp() -> None:
    with pytest.raises(ValidationError, match=r"greater than or equal to 2"):
        Ramped(levels=1)
