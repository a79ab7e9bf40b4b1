"""Mixup, CutMix and stochastic depth: what they do to values and shares, keyed by sample."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskedmodel.errors import ConfigError
from maskedmodel.noise import Noise
from maskedmodel.testing.fixtures import Box, generator
from maskedmodel.tokens import Tokens
from maskedmodel.training.mixing import mixed
from maskedmodel.training.supervised import branches

BOXES = [Box(), Box(axes=("time",), size=(48,), patch=(6,), channels=2), Box(channels=2, separate=True)]


def tokens_of(box: Box, batch: int = 7) -> Tokens:
    return box.tokenize(box.example(batch, generator()))


@pytest.mark.parametrize("box", BOXES, ids=["image", "line", "a token per channel"])
def test_mixup_is_the_same_share_of_every_value(box: Box) -> None:
    tokens = tokens_of(box)
    found, share, partner = mixed(tokens, Noise.of(range(7)), mixup=0.4, cutmix=0.0)
    assert partner.tolist() == [1, 0, 3, 2, 5, 4, 6]
    assert torch.equal(share[:6:2], share[1:6:2])
    expected = share[:, None, None] * tokens.values + (1 - share)[:, None, None] * tokens.values[partner]
    torch.testing.assert_close(found.values, expected)
    assert share[6] == 1.0  # nobody is left to mix it with
    assert torch.equal(found.values[6], tokens.values[6])


@pytest.mark.parametrize("box", BOXES, ids=["image", "line", "a token per channel"])
def test_cutmix_takes_whole_tokens_of_a_box_and_counts_them(box: Box) -> None:
    tokens = tokens_of(box)
    found, share, partner = mixed(tokens, Noise.of(range(7)), mixup=0.0, cutmix=1.0)
    own = (found.values == tokens.values).all(-1)
    other = (found.values == tokens.values[partner]).all(-1)
    assert bool((own | other).all())
    torch.testing.assert_close(own.float().mean(1), share)
    assert bool((~own).any(1)[:6].any())
    grid, channels = torch.Size(tokens.grid or ()), tokens.length // torch.Size(tokens.grid or ()).numel()
    for row in (~own).view(7, channels, *grid):
        assert all(torch.equal(row[0], channel) for channel in row)  # a box goes through every channel
        inside = row[0].nonzero()
        if len(inside):
            extent = inside.amax(0) - inside.amin(0) + 1
            assert int(extent.prod()) == len(inside)  # and is a box


def test_pairs_come_out_the_same_in_any_micro_batches() -> None:
    tokens, noise = tokens_of(Box(), 8), Noise.of(range(8), seed=3)
    whole, shares, _ = mixed(tokens, noise, 0.8, 1.0)
    parts = [mixed(tokens.rows(rows), noise.rows(rows), 0.8, 1.0) for rows in (slice(0, 2), slice(2, 8))]
    assert torch.equal(whole.values, torch.cat([part[0].values for part in parts]))
    assert torch.equal(shares, torch.cat([part[1] for part in parts]))


def test_shares_follow_the_beta_distribution() -> None:
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    box = Box(axes=("time",), size=(1,), patch=(1,), channels=1)
    tokens = box.tokenize(torch.zeros(20_000, 1, 1))
    for alpha in (0.2, 0.8, 3.0):
        share = mixed(tokens, Noise.of(range(20_000)), alpha, 0.0)[1][::2]
        assert float(share.mean()) == pytest.approx(0.5, abs=0.01)
        assert float(share.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


def test_both_take_turns_by_the_toss_of_a_coin() -> None:
    tokens = tokens_of(Box(), 400)
    found, share, partner = mixed(tokens, Noise.of(range(400)), 0.8, 1.0)
    whole = ((found.values == tokens.values) | (found.values == tokens.values[partner])).all(-1).all(-1)
    assert 150 < int(whole.sum()) < 250
    assert bool(((share >= 0) & (share <= 1)).all())


def test_what_fills_no_grid_is_refused() -> None:
    tokens = tokens_of(Box())
    ragged = replace(tokens, valid=torch.ones(7, tokens.length, dtype=torch.bool))
    for given in (ragged, replace(tokens, grid=None)):
        with pytest.raises(ConfigError, match="can't be mixed"):
            mixed(given, Noise.of(range(7)), 0.8, 0.0)


def test_stochastic_depth_keeps_what_it_adds_in_the_mean() -> None:
    """None of the first block is dropped, the stated share of the last, and the mean of what is kept is one."""
    kept = branches(Noise.of(range(20_000)), depth=3, rate=0.4)
    assert kept is not None
    assert kept.shape == (20_000, 3, 2)
    assert bool((kept[:, 0] == 1).all())
    dropped = (kept == 0).float().mean(0)
    torch.testing.assert_close(dropped, torch.tensor([[0.0, 0.0], [0.2, 0.2], [0.4, 0.4]]), atol=0.02, rtol=0)
    torch.testing.assert_close(kept.mean(0), torch.ones(3, 2), atol=0.03, rtol=0)
    assert branches(Noise.of(range(3)), 3, 0.0) is None
