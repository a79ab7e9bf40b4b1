from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from maskedmodel.noise import Noise, sample_key, seeded, stable_hash

IDS = ["a.png", "b.png", 7, -3]
GOLDEN_MASK = [[8589046, 2229872, 16209520], [106241, 10131270, 15747541]]
GOLDEN_FLIP = [[1735074, 16514827], [3636576, 5702476]]
GOLDEN_HASH = 6266261796961190882


def distance_from_uniform(x: Tensor) -> float:
    """Kolmogorov and Smirnov's statistic times sqrt(n): above 1.95 about once in a thousand."""
    ordered = x.flatten().double().sort().values
    n = ordered.numel()
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum(steps[1:] - ordered, ordered - steps[:-1]).max()) * math.sqrt(n)


def test_frozen_numbers() -> None:
    """A change here changes every mask of every run: runs from before it could no longer be repeated."""
    noise = Noise.of(["a.png", 7], seed=1, epoch=2)
    grid = 2**24
    assert (noise.uniform(3) * grid).long().tolist() == GOLDEN_MASK
    assert (noise.uniform(2, "flip") * grid).long().tolist() == GOLDEN_FLIP
    assert stable_hash("a.png") == GOLDEN_HASH
    assert sample_key(7) == 7


def splitmix(x: int) -> int:
    """The finaliser of splitmix64 as published, on whole numbers of any length."""
    x = (x + 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    return x ^ x >> 31


@settings(max_examples=25, deadline=None)
@given(key=st.integers(-(2**63), 2**63 - 1), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 2**63 - 1))
def test_equals_the_published_mixing_in_exact_arithmetic(key: int, seed: int, epoch: int) -> None:
    start = splitmix(splitmix((splitmix((key ^ stable_hash(f"{seed}/mask")) % 2**64) + epoch) % 2**64))
    expected = [(splitmix((start + i) % 2**64) >> 40) / 2**24 for i in range(4)]
    assert Noise.of([key], seed=seed, epoch=epoch).uniform(4)[0].tolist() == expected


@settings(max_examples=25, deadline=None)
@given(order=st.permutations(range(len(IDS))), seed=st.integers(0, 2**62), epoch=st.integers(0, 2**40))
def test_a_sample_has_its_numbers_in_any_batch(order: list[int], seed: int, epoch: int) -> None:
    together = Noise.of(IDS, seed=seed, epoch=epoch)
    shuffled = Noise.of([IDS[i] for i in order], seed=seed, epoch=epoch)
    assert torch.equal(shuffled.uniform(9), together.uniform(9)[order])
    alone = Noise.of([IDS[2]], seed=seed, epoch=epoch)  # type: ignore[list-item]
    assert torch.equal(alone.uniform(9)[0], together.uniform(9)[2])
    assert torch.equal(together.rows(slice(1, 3)).uniform(9), together.uniform(9)[1:3])
    assert torch.equal(together.rows(torch.tensor([3, 0])).uniform(9), together.uniform(9)[[3, 0]])


def test_more_numbers_begin_with_the_fewer() -> None:
    noise = Noise.of(IDS)
    assert torch.equal(noise.uniform(100)[:, :10], noise.uniform(10))
    assert noise.uniform(0).shape == (4, 0)


def test_a_batch_may_span_two_epochs() -> None:
    keys = Noise.of(IDS).keys
    mixed = Noise(3, torch.tensor([0, 0, 1, 1]), keys)
    assert torch.equal(mixed.uniform(5)[:2], Noise.of(IDS, seed=3, epoch=0).uniform(5)[:2])
    assert torch.equal(mixed.uniform(5)[2:], Noise.of(IDS, seed=3, epoch=1).uniform(5)[2:])


def test_uniform_over_tokens_samples_and_epochs() -> None:
    x = Noise.of(range(200)).uniform(500)
    assert x.dtype == torch.float32
    assert 0 <= float(x.min()) < float(x.max()) < 1
    assert distance_from_uniform(x) < 1.95
    for token in (0, 1, 499):
        assert distance_from_uniform(Noise.of(range(5000)).uniform(500)[:, token]) < 1.95
    over_epochs = torch.cat([Noise.of([5], epoch=epoch).uniform(1) for epoch in range(2000)])
    assert distance_from_uniform(over_epochs) < 1.95
    assert float(x.double().mean()) == pytest.approx(1 / 2, abs=5 / math.sqrt(12 * x.numel()))
    assert float(x.double().var()) == pytest.approx(1 / 12, rel=0.01)


def test_what_should_be_independent_is() -> None:
    """Correlations over 100,000 pairs: a standard deviation of 0.0032."""
    ids = range(200)
    base = Noise.of(ids).uniform(500)
    others = {
        "the next token": base.roll(1, 1),
        "the next sample": base.roll(1, 0),
        "the next epoch": Noise.of(ids, epoch=1).uniform(500),
        "the next seed": Noise.of(ids, seed=1).uniform(500),
        "another purpose": Noise.of(ids).uniform(500, "flip"),
        "ids as text": Noise.of([str(i) for i in ids]).uniform(500),
    }
    for name, other in others.items():
        both = torch.stack([base.flatten(), other.flatten()])
        assert abs(float(torch.corrcoef(both.double())[0, 1])) < 0.016, name
        assert float((base == other).float().mean()) < 1e-4, name


def test_every_token_is_as_likely_to_be_hidden() -> None:
    """What masks do with the numbers: the twelve highest of 16, over 20,000 samples."""
    hidden = Noise.of(range(20_000)).uniform(16).argsort(1)[:, 4:]
    share = torch.bincount(hidden.flatten(), minlength=16) / 20_000
    assert float((share - 0.75).abs().max()) < 5 * math.sqrt(0.75 * 0.25 / 20_000)


def test_ids_of_any_kind() -> None:
    assert sample_key("7") != sample_key(7)
    assert -(2**63) <= stable_hash("") < 2**63
    assert len({stable_hash(f"{i}") for i in range(10_000)}) == 10_000
    biggest = Noise.of([2**63 - 1, -(2**63)], seed=2**63 - 1)
    drawn = biggest.uniform(3)
    assert bool(((drawn >= 0) & (drawn < 1)).all())
    assert len(drawn.unique()) == 6  # no two keys wrap round to one


def test_the_global_generator_is_left_alone_but_by_random() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Noise.of(IDS).uniform(10)
    with seeded(5):
        first = torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)
    one = Noise.random(2).uniform(4)
    assert not torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)
    assert torch.equal(Noise.random(2).uniform(4), one)


def test_seeded_gives_the_generator_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="shape"), seeded(1):
        torch.rand(3).reshape(2)
    assert torch.equal(torch.get_rng_state(), before)
