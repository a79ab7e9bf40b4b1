"""The analytic count against what torch counts while the engine runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_masks.uniform import Uniform
from maskedmodel_objectives.patch import Patch
from torch import Tensor, nn

from maskedmodel import MaskedAutoencoder, Noise, Tokens
from maskedmodel.engine import kernels
from maskedmodel.engine.flops import TRAIN, block_flops, cross_block_flops, flop_counter, forward_flops, per_token
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from tests.boxes import Box

needs_onednn = pytest.mark.skipif(not kernels.has_operator(), reason="this torch has no oneDNN")


def counted(model: MaskedAutoencoder, tokens: Tokens, backward: bool = False) -> float:
    with flop_counter() as counter:
        loss = model(tokens).loss
        if backward:
            loss.backward()
    return float(counter.get_total_flops())


@pytest.fixture(autouse=True, params=[pytest.param(True, marks=needs_onednn), False])
def counted_kernels(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Either product, and no fused attention, which torch's counter doesn't know."""
    monkeypatch.setattr(kernels, "chosen_products", kernels.everywhere(request.param))
    monkeypatch.setattr(kernels, "chosen_attention", kernels.Attention(400))


class Described(Box):
    """Channels with tokens of their own, each described by a number."""

    separate_channels = True
    channel_features = 1

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        assert tokens.channel is not None
        return replace(tokens, channel_features=tokens.channel[:, None].to(signal))


def build(
    ratio: float, encoder: dict[str, Any], decoder: dict[str, Any], tokenizer: Box | None = None
) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(**{"dim": 24, "depth": 2, "heads": 2, **encoder}),
        decoder=DecoderSettings(**{"dim": 16, "depth": 3, "heads": 2, **decoder}),
    )
    tokenizer = tokenizer or Box(size=(8, 12), patch=(2, 3))
    return MaskedAutoencoder(tokenizer, Uniform(ratio=ratio), Patch(), settings)


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"depth": 1, "class_token": False}, {"depth": 1}),
    ({"registers": 3, "mlp_ratio": 1.7}, {"mlp_ratio": 2.3, "depth": 2}),
    ({}, {"attention": "cross"}),
    ({"registers": 1}, {"attention": "cross", "depth": 1}),
    ({"mlp": "swiglu", "mlp_ratio": 8 / 3}, {"mlp": "swiglu", "depth": 2}),
    ({}, {"attention": "cross", "mlp": "swiglu"}),
    ({"positions": "mlp"}, {"positions": "mlp", "repeat_positions": True}),
]


@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize("ratio", [0.25, 0.75])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_the_count_is_what_the_engine_multiplies(case: int, ratio: float, batch: int) -> None:
    model = build(ratio, *CASES[case])
    tokens = model.tokenizer.tokenize(model.tokenizer.example(batch, torch.Generator().manual_seed(0)))
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(batch)))
    visible, hidden = mask.ids_keep.shape[1], mask.ids_hidden.shape[1]
    assert forward_flops(model, visible, hidden, batch).total == counted(model, tokens)


def test_a_step_is_three_forward_passes_but_for_what_needs_no_gradient() -> None:
    model = build(0.5, {}, {})
    tokens = model.tokenizer.tokenize(model.tokenizer.example(4, torch.Generator().manual_seed(0)))
    step, forward = counted(model, tokens, backward=True), counted(model, tokens)
    assert 0.97 * TRAIN * forward < step <= TRAIN * forward


def test_more_visible_tokens_cost_more_in_the_encoder() -> None:
    model = build(0.5, {}, {})
    few, many = forward_flops(model, 4, 12), forward_flops(model, 12, 4)
    assert many.encoder > few.encoder
    assert forward_flops(model, 4, 12, 3).encoder == 3 * few.encoder
    assert few.total == few.encoder + few.decoder


@pytest.mark.parametrize("own", [False, True])
def test_what_describes_channels_is_counted(own: bool) -> None:
    model = build(0.5, {}, {}, Described(channels=2, size=(8, 12), patch=(2, 3)))
    tokens = model.tokenizer.tokenize(model.tokenizer.example(5, torch.Generator().manual_seed(0)))
    if own:
        coords, features = tokens.coords.expand(5, -1, -1), tokens.channel_features.expand(5, -1, -1)
        tokens = replace(tokens, coords=coords, channel_features=features)
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(5)))
    visible, hidden = mask.ids_keep.shape[1], mask.ids_hidden.shape[1]
    assert forward_flops(model, visible, hidden, 5, shared_positions=not own).total == counted(model, tokens)


def test_positions_of_their_own_share_no_projection() -> None:
    model = build(0.5, {}, {})
    assert forward_flops(model, 8, 8, 5, shared_positions=False).total == 5 * forward_flops(model, 8, 8).total


class TwoLayers(nn.Module):
    """An embedding that isn't a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 5), nn.Linear(5, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x).relu())


def test_a_plugins_own_embedding_is_counted_as_it_runs() -> None:
    assert per_token(TwoLayers(), 6) == 2 * (6 * 5 + 5 * 4)
    assert per_token(nn.Linear(6, 5), 6) == 2 * 6 * 5


def test_blocks_by_hand() -> None:
    # 3 tokens of width 2, MLP of 8: q, k, v, out 4 * 2 * 2; scores and mixing 2 * 3 * 2; MLP 2 * 2 * 8; each token.
    assert block_flops(3, 2) == 2 * 3 * (16 + 12 + 32)
    assert block_flops(3, 2, asking=1) == 2 * (3 * 8 + 8 + 12 + 32)
    # 1 token asks 3 of width 5: q and out 2 * 2 * 2, k and v 3 * 2 * 5 * 2, scores and mixing 2 * 3 * 2, MLP 32.
    assert cross_block_flops(1, 3, 2, 5) == 2 * (8 + 60 + 12 + 32)
