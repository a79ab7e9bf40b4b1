"""Rows of other counts: in groups without padding they train as they do together, and cost what they keep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from maskedmodel import Mask, MaskedAutoencoder, Tokens
from maskedmodel.config.sections import TrainSettings
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import seeded
from maskedmodel.testing.fixtures import Box, Direct, Fixed
from maskedmodel.training import packing
from maskedmodel.training.distributed import World
from maskedmodel.training.masked import MaskedModelling
from maskedmodel.training.packing import GROUPS, packed, pays
from maskedmodel.training.parts import Part, backward

WIDE = packing.WORTH  # an encoder for which any batch is large
COUNTS = torch.tensor([4, 12, 8, 4, 12, 12, 8, 4, 12])


def tokens_of(batch: int, padded: bool = False) -> Tokens:
    tokens = Box().tokenize(torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    if not padded:
        return tokens
    return replace(tokens, valid=torch.arange(16) < 16 - torch.arange(batch)[:, None] % 3)


def mask_of(tokens: Tokens, counts: Tensor) -> Mask:
    scores = torch.rand(tokens.batch, tokens.length, generator=torch.Generator().manual_seed(1))
    return Mask.from_scores(scores, 0.5, tokens.valid, counts)


def test_groups_hold_every_row_once_and_nothing_is_filled_up() -> None:
    tokens = tokens_of(9)
    mask = mask_of(tokens, COUNTS)
    assert mask.keep_valid is not None
    groups = packed(tokens, mask, WIDE)
    assert [(part.ids_keep.shape, part.ids_hidden.shape) for _, part in groups] == [
        ((4, 4), (4, 12)),
        ((2, 8), (2, 8)),
        ((3, 12), (3, 4)),
    ]
    assert all(part.keep_valid is None and part.hidden_valid is None for _, part in groups)
    order = torch.cat([(count == COUNTS).nonzero()[:, 0] for count in (12, 8, 4)])
    assert torch.equal(torch.cat([part.values for part, _ in groups]), tokens.values[order])
    assert torch.equal(torch.cat([part.hidden for _, part in groups]), mask.hidden[order])
    assert sum(part.scored for _, part in groups) == mask.scored


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_loss_and_gradients_are_those_of_the_whole_batch(
    padded: bool, positions: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "WORTH", 1)
    tokens = tokens_of(9, padded)
    mask = mask_of(tokens, COUNTS.clamp(max=8) if padded else COUNTS)
    with seeded(0):
        model = MaskedAutoencoder(
            Box(),
            Fixed(),
            Direct(),
            ModelSettings(
                encoder=EncoderSettings(dim=32, depth=2, heads=2, positions=positions),
                decoder=DecoderSettings(dim=32, depth=2, heads=2),
            ),
        )
    world, losses, gradients = World(0, 1, torch.device("cpu")), [], []
    for together in (True, False):  # a compiled model takes the batch as it is
        model.zero_grad()
        settings = TrainSettings(compile=together, precision="fp32")
        learning = MaskedModelling(model, settings)
        losses.append(backward(learning, model, [Part(tokens, mask, mask.scored)], mask.scored, world))
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert len(packed(tokens, mask, WIDE)) > 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-6)


def test_a_batch_stays_whole_where_grouping_gains_nothing() -> None:
    tokens = tokens_of(12)
    alike = mask_of(tokens, torch.full((12,), 8))
    everyone_else = mask_of(tokens, torch.arange(12) + 2)
    gated = replace(mask_of(tokens, torch.arange(12) % 2 + 4), gates=torch.ones(12, 16))
    lone = replace(tokens, valid=torch.arange(16) < torch.tensor([16] * 11 + [1])[:, None])
    nothing_to_hide = mask_of(lone, torch.full((12,), 8))
    assert everyone_else.hidden.sum(1).unique().numel() > GROUPS
    for given, mask in ((tokens, alike), (tokens, everyone_else), (tokens, gated), (lone, nothing_to_hide)):
        ((same, whole),) = packed(given, mask, WIDE)
        assert same is given
        assert whole is mask


def test_a_small_batch_stays_whole() -> None:
    tokens = tokens_of(9)
    mask = mask_of(tokens, COUNTS)
    least = -(-packing.WORTH // (9 * 16))
    assert len(packed(tokens, mask, least)) == 3
    assert len(packed(tokens, mask, least - 1)) == 1
    assert pays(32, 256, 192)
    assert not pays(128, 64, 64)
