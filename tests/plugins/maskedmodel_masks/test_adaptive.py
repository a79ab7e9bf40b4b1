"""adaptive: the kit, what counts as dense, odds by rank, counts that follow content under a fixed average."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_masks.adaptive import Adaptive
from maskedmodel_masks.ranking import ranks
from maskedmodel_masks.uniform import Uniform
from pydantic import ValidationError
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel.errors import ConfigError, PluginError
from maskedmodel.testing import parametrize_checks
from maskedmodel.testing.fixtures import Box, attached, layouts
from tests.plugins.maskedmodel_masks.mask_tokens import grid, masks


@parametrize_checks(
    [Adaptive, Adaptive(signal="gradient", sign="hide", spread=0.1), Adaptive(signal="entropy", spread=-0.1, levels=2)]
)
def test_conformance(check: Callable[[], None]) -> None:
    check()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def half_dense(batch: int, length: int = 16, width: int = 12) -> Tokens:
    """Every other token is flat, the rest are noise."""
    values = draw(batch, length, width)
    values[:, ::2] *= 0.01
    return grid(batch, length, values=values)


# Density


@pytest.mark.parametrize("signal", ["variance", "gradient", "entropy"])
def test_flat_tokens_are_the_empty_ones(signal: str) -> None:
    density = Adaptive(signal=signal).density(half_dense(4))
    assert float(density[:, ::2].max()) < float(density[:, 1::2].min())
    constant = Adaptive(signal=signal).density(grid(2, 4, values=torch.full((2, 4, 6), 3.0)))
    assert constant.abs().max() == 0


def test_variance_is_that_of_the_values() -> None:
    values = draw(2, 3, 5)
    torch.testing.assert_close(
        Adaptive().density(grid(2, 3, values=values)), values.var(-1, correction=0), atol=1e-6, rtol=1e-5
    )


def test_entropy_is_that_of_the_histogram() -> None:
    values = torch.tensor([[[0.0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]])
    expected = [math.log(2), 0.0, -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))]
    assert Adaptive(signal="entropy").density(grid(1, 3, values=values))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("channels_last", [True, False])
def test_gradient_energy_knows_rows_columns_and_channels(channels_last: bool) -> None:
    """A patch of 4 x 4 with three constant channels has no gradient, however far apart the channels are."""
    tokenizer = Box(size=(8, 8))
    tokenizer.channels_last = channels_last
    scheduler = Adaptive(signal="gradient")
    scheduler.attach(tokenizer, None)  # type: ignore[arg-type]
    flat = torch.arange(3.0)[None, :, None, None].expand(1, 3, 8, 8).clone()
    assert scheduler.density(tokenizer.tokenize(flat)).abs().max() == 0
    flat[0, 0, :4, 0] = 2  # one column of the first patch: four steps of 2 to the right of it, of 3 * 24 differences
    density = scheduler.density(tokenizer.tokenize(flat))
    assert density[0].tolist() == pytest.approx([4 * 4 / 72, 0, 0, 0])


@pytest.mark.parametrize("signal", ["variance", "gradient", "entropy"])
def test_only_observed_values_make_a_token_dense(signal: str) -> None:
    tokens = half_dense(3)
    observed = torch.ones_like(tokens.values, dtype=torch.bool)
    observed[:, :, 7:] = False
    seen = replace(tokens, observed=observed)
    spoiled = replace(seen, values=tokens.values.masked_fill(~observed, 0.3))
    scheduler = Adaptive(signal=signal)
    if signal == "entropy":  # its range is that of observed values too
        assert torch.equal(scheduler.density(seen), scheduler.density(spoiled))
    torch.testing.assert_close(scheduler.density(seen), scheduler.density(spoiled))
    short = replace(tokens, values=tokens.values[:, :, :7].contiguous())
    torch.testing.assert_close(scheduler.density(seen), scheduler.density(short))


def test_equal_scores_share_a_rank_and_padding_has_none() -> None:
    scores = torch.tensor([[3.0, 1, 1, 2, 9], [5, 5, 5, 5, 5]])
    valid = torch.tensor([[True, True, True, True, False], [True, True, True, False, False]])
    assert ranks(scores, valid)[0, :4].tolist() == pytest.approx([1, 1 / 6, 1 / 6, 2 / 3])
    assert ranks(scores, valid)[1, :3].tolist() == [0.5] * 3
    assert ranks(scores, None)[0].tolist() == pytest.approx([0.75, 0.125, 0.125, 0.5, 1])


# Masks


@pytest.mark.parametrize("signal", ["variance", "gradient", "entropy"])
def test_the_sign_says_which_tokens_are_hidden(signal: str) -> None:
    tokens = half_dense(500)
    for sign, dense_more in (("show", False), ("hide", True)):
        hidden = masks(Adaptive(signal=signal, sign=sign, ratio=0.5), tokens).hidden.float().mean(0)
        assert (float(hidden[1::2].mean()) > float(hidden[::2].mean()) + 0.2) is dense_more


def test_strength_is_the_logarithm_of_the_odds() -> None:
    """With two tokens and one hidden, the denser one is hidden with odds of exp(strength)."""
    values = torch.stack([torch.zeros(4), torch.tensor([1.0, -1, 1, -1])]).expand(20_000, 2, 4)
    for strength in (0.0, 1.0, 3.0):
        mask = masks(Adaptive(ratio=0.5, strength=strength, sign="hide"), grid(20_000, 2, values=values))
        share = float(mask.hidden[:, 1].float().mean())
        assert share == pytest.approx(1 / (1 + math.exp(-strength)), abs=0.015)


def test_without_strength_every_token_is_as_likely() -> None:
    hidden = masks(Adaptive(ratio=0.5, strength=0), half_dense(4000)).hidden.float().mean(0)
    torch.testing.assert_close(hidden, torch.full((16,), 0.5), atol=0.04, rtol=0)


def test_a_sample_of_nothing_but_background_is_masked_at_random() -> None:
    tokens = grid(4000, 8, values=torch.full((4000, 8, 6), 0.7))
    hidden = masks(Adaptive(ratio=0.5, strength=10), tokens).hidden.float().mean(0)
    torch.testing.assert_close(hidden, torch.full((8,), 0.5), atol=0.04, rtol=0)


# Counts that follow content


def measured(scheduler: Adaptive, tokens: Tokens) -> Adaptive:
    ready = attached(scheduler, tokens)
    assert isinstance(ready, Adaptive)
    return ready


def uneven(batch: int = 400, length: int = 40) -> Tokens:
    """Samples whose density goes from low to high."""
    scale = torch.linspace(0.1, 3, batch)[:, None, None]
    return grid(batch, length, values=draw(batch, length, 6) * scale)


@pytest.mark.parametrize(("spread", "levels"), [(0.2, 5), (-0.2, 3), (0.1, 2)])
def test_counts_follow_density_in_few_levels_under_a_fixed_average(spread: float, levels: int) -> None:
    tokens = uneven()
    scheduler = measured(Adaptive(ratio=0.5, spread=spread, levels=levels), tokens)
    mask = masks(scheduler, tokens)
    hidden = mask.hidden.sum(1).float()
    assert len(hidden.unique()) == levels
    assert float(hidden.mean()) == pytest.approx(20, abs=8 / 400 + 1e-5)  # each level has as many samples, to one
    assert (hidden.min(), hidden.max()) == (20 - 40 * abs(spread), 20 + 40 * abs(spread))
    assert (float(hidden[:100].mean()) > float(hidden[-100:].mean())) is (spread > 0)


def test_bounds_say_the_widths_without_a_look_at_the_counts() -> None:
    tokens = uneven()
    scheduler = measured(Adaptive(ratio=0.5, spread=0.2), tokens)
    assert scheduler.bounds(tokens, 0.0) == (12, 28)
    for rows in (slice(0, 400), slice(0, 3)):  # the same widths whatever samples a batch holds: one compiled graph
        mask = scheduler.sample(tokens.rows(rows), 0.0, Noise.of(range(400)).rows(rows))
        assert mask.widths == (28, 28)
        assert mask.ids_keep.shape[1] == mask.ids_hidden.shape[1] == 28


def test_a_count_depends_on_the_sample_alone() -> None:
    tokens = uneven()
    scheduler, noise = measured(Adaptive(ratio=0.5, spread=0.2), tokens), Noise.of(range(400))
    whole = scheduler.sample(tokens, 0.0, noise).hidden
    for start in range(0, 400, 100):
        rows = slice(start, start + 100)
        assert torch.equal(scheduler.sample(tokens.rows(rows), 0.0, noise.rows(rows)).hidden, whole[rows])


def test_what_was_measured_is_stored_with_the_weights() -> None:
    tokens = uneven()
    scheduler = measured(Adaptive(ratio=0.5, spread=0.2), tokens)
    again = Adaptive(ratio=0.5, spread=0.2)
    with pytest.raises(PluginError, match="weren't measured"):
        masks(again, tokens)
    again.load_state_dict(scheduler.state_dict())
    assert torch.equal(masks(again, tokens).hidden, masks(scheduler, tokens).hidden)


def test_nothing_is_measured_where_all_samples_keep_as_many() -> None:
    assert not Adaptive().needs_statistics
    assert Adaptive(spread=0.1).needs_statistics
    tokens = half_dense(4)
    assert masks(Adaptive(), tokens).even is True


def test_a_ramp_goes_with_a_spread() -> None:
    tokens = uneven()
    scheduler = measured(Adaptive(ratio={"shape": "linear", "start": 0.4, "end": 0.7}, spread=0.2), tokens)
    means = [float(masks(scheduler, tokens, p).hidden.float().mean()) for p in (0.0, 1.0)]
    assert means == pytest.approx([0.4, 0.7], abs=0.01)


def test_uneven_rows_with_padding_hide_their_share() -> None:
    tokens = layouts()["padding"]
    scheduler = measured(Adaptive(ratio=0.5, spread=0.25), tokens)
    assert tokens.valid is not None
    share = masks(scheduler, tokens).hidden.sum(1)[:4] / tokens.valid.sum(1)[:4]
    assert float(share.min()) >= 0.2
    assert float(share.max()) <= 0.8


# Refusals


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ratio": 0.9, "spread": 0.1}, "isn't between 0 and 1"),
        ({"ratio": {"shape": "linear", "start": 0.2, "end": 0.5}, "spread": -0.3}, "isn't between 0 and 1"),
        ({"levels": 1}, "greater than or equal to 2"),
        ({"levels": 9}, "less than or equal to 8"),
        ({"strength": -1}, "greater than or equal to 0"),
        ({"signal": "size"}, "variance"),
        ({"sign": "both"}, "hide"),
    ],
)
def test_bad_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Adaptive(**values)


def test_a_spread_beyond_the_number_of_tokens_is_refused_when_the_model_is_built() -> None:
    with pytest.raises(ConfigError, match="hides all of the 16 tokens") as caught:
        attached(Adaptive(ratio=0.8, spread=0.19), layouts()["one axis"])
    assert caught.value.where == "mask.ratio and mask.spread"


def test_it_is_uniform_in_its_counts() -> None:
    tokens = half_dense(5)
    assert torch.equal(masks(Adaptive(), tokens).hidden.sum(1), masks(Uniform(), tokens).hidden.sum(1))
