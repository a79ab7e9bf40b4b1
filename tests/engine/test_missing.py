"""Tokens that are there in part, channels never met, and what a scheduler is given of the encoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_objectives.fourier import Fourier
from torch import Tensor

from maskedmodel import Mask, Objective
from maskedmodel.errors import ConfigError, PluginError
from maskedmodel.scenes import score_values
from tests.engine.conftest import Box, Ragged, model_of, noise


class Gappy(Box):
    """A Box whose signal says by NaN what isn't there."""

    accepts_nan = True


def signal() -> Tensor:
    return torch.randn(2, 3, 8, 12, generator=torch.Generator().manual_seed(0))


def test_missing_values_are_padding_or_unobserved_and_come_back_as_nan() -> None:
    tokenizer, x = Gappy(), signal()
    x[0, :, :2, :3] = torch.nan  # a whole token
    x[1, 0, 0, 3] = torch.nan  # one value of another
    tokens = tokenizer.tokenize(x)
    assert tokens.valid is not None
    assert (~tokens.valid).nonzero().tolist() == [[0, 0]]
    assert tokens.observed is not None
    assert (~tokens.observed[1]).nonzero().tolist() == [[1, 0]]
    assert torch.isfinite(tokens.values).all()
    torch.testing.assert_close(tokenizer.detokenize(tokens.values, tokens), x, rtol=0, atol=0, equal_nan=True)


def test_a_signal_that_is_all_there_carries_neither() -> None:
    tokens = Gappy().tokenize(signal())
    assert tokens.valid is None
    assert tokens.observed is None


def test_samples_of_different_extents_are_filled_up() -> None:
    tokenizer = Gappy()
    short = signal()[0, :, :4, :6]
    batch = tokenizer.collate([signal()[1], short])
    assert batch.shape == (2, 3, 8, 12)
    torch.testing.assert_close(batch[1, :, :4, :6], short)
    assert batch[1, :, 4:].isnan().all()
    assert tokenizer.collate([x.to(torch.uint8) for x in (signal()[1], short)]).dtype == torch.float32


@pytest.mark.parametrize("normalise", [False, True])
def test_only_values_that_were_observed_are_scored(normalise: bool) -> None:
    model = model_of(Gappy(), normalise=normalise)
    x = signal()
    x[:, 1, ::3, ::4] = torch.nan
    tokens = model.tokens(x)
    assert tokens.observed is not None
    mask = model.scheduler.sample(tokens, 0.0, noise(2))
    prediction = torch.randn(2, mask.ids_hidden.shape[1], tokens.values.shape[2]).requires_grad_()
    loss = model.score(prediction, tokens, mask)
    ids = mask.ids_hidden[..., None].expand_as(prediction)
    observed, values = tokens.observed.gather(1, ids), tokens.values.gather(1, ids)
    mean = (values * observed).sum(-1, keepdim=True) / observed.sum(-1, keepdim=True)
    target = model.objective.target(torch.where(observed, values, mean))
    expected = ((prediction - target).square() * observed).sum(-1) / observed.sum(-1)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert prediction.grad is not None
    assert (prediction.grad[~observed] == 0).all()
    assert (prediction.grad[observed] != 0).all()


@pytest.mark.parametrize("normalise", [False, True])
def test_what_stands_in_place_of_missing_values_moves_no_loss(normalise: bool) -> None:
    model = model_of(Gappy(), normalise=normalise)
    x = signal()
    x[:, 0, 0, 0] = torch.nan
    tokens = model.tokens(x)
    hidden = torch.zeros(2, tokens.length, dtype=torch.bool)
    hidden[:, 0] = True
    first = model(tokens, Mask(hidden)).loss
    assert tokens.observed is not None
    other = replace(tokens, values=tokens.values.masked_fill(~tokens.observed, 7.0))
    torch.testing.assert_close(model(other, Mask(hidden)).loss, first, rtol=0, atol=0)


def test_an_objective_of_another_width_says_that_it_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(Gappy())
    monkeypatch.setattr(model.objective, "target", lambda values: values.mean(-1, keepdim=True))
    x = signal()
    x[0, 0, 0, 0] = torch.nan
    with pytest.raises(PluginError, match="there in part"):
        model(x)


def test_a_loss_that_is_not_value_by_value_is_refused_on_tokens_in_part() -> None:
    """Filled values would have their say, and the share mean nothing."""

    class Largest(Fourier):
        by_value = False
        loss_in_part = Objective.loss_in_part

        def loss(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).abs().amax(-1)

    tokenizer = Gappy()
    objective = Largest(share=0.5)
    model = model_of(tokenizer)
    objective.attach(tokenizer)
    model.objective = objective
    x = signal()
    model(x)
    x[:, 0, ::3, ::4] = torch.nan
    with pytest.raises(PluginError, match="by_value = True"):
        model(x)


def test_a_spectrum_of_tokens_in_part_is_that_of_patches_completed_alike() -> None:
    """Squares count over what is there; spectra are of two patches that are equal where nothing is."""
    objective = Fourier(share=0.5, norm="ortho")
    objective.attach(Gappy())
    values, prediction = torch.randn(2, 2, 3, objective.width(Gappy()), generator=torch.Generator().manual_seed(0))
    observed = torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    mean = (values * observed).sum(-1, keepdim=True) / observed.sum(-1, keepdim=True)
    filled, known = torch.where(observed, values, mean), torch.where(observed, prediction, mean)
    squared = ((prediction - values).square() * observed).sum(-1) / observed.sum(-1)
    spectra = 2 * objective.loss(known, filled) - (known - filled).square().mean(-1)
    torch.testing.assert_close(score_values(objective, prediction, values, observed), (squared + spectra) / 2)
    elsewhere = torch.where(observed, values, 7.0), torch.where(observed, prediction, -3.0)
    torch.testing.assert_close(score_values(objective, *elsewhere[::-1], observed), (squared + spectra) / 2)


def test_a_channel_never_met_gets_no_embedding() -> None:
    model = model_of(Box(separate=True, channels=2))
    places = model.encoder.places
    coords = torch.zeros(3, 2)
    table = places(coords, None, torch.tensor([0, 1, 5]))
    alone = places(coords, None, None)
    assert not torch.equal(table[0], alone[0])
    assert torch.equal(table[2], alone[2])


def test_channels_can_be_left_to_the_decoder() -> None:
    encoder = {"depth": 1, "channels": False}
    tokenizer = Box(separate=True)
    model = model_of(tokenizer, encoder=encoder)
    assert model.encoder.places.channels is None
    assert model.decoder.places.channels is not None
    x = signal()
    # Without identity, swapping channels permutes the features and changes nothing else.
    own, swapped = model.encode(x), model.encode(x.flip(1))
    length = own.shape[1] // 3
    torch.testing.assert_close(own[:, :length], swapped[:, 2 * length :], rtol=1e-5, atol=1e-6)


def test_gates_are_ones_in_value_and_pass_the_gradient() -> None:
    model, x = model_of(Box()), signal()
    tokens = model.tokens(x)
    mask = model.scheduler.sample(tokens, 0.0, noise(2))
    gates = torch.ones(2, tokens.length, requires_grad=True)
    gated = model(tokens, replace(mask, gates=gates))
    assert torch.equal(gated.loss, model(tokens, mask).loss)
    gated.loss.backward()
    assert gates.grad is not None
    assert (gates.grad[mask.hidden] == 0).all()
    assert (gates.grad[mask.visible] != 0).all()


@pytest.mark.parametrize(("positions", "repeated"), [("sincos", False), ("sincos", True), ("rotary", False)])
def test_class_attention_is_that_of_the_last_block(positions: Any, repeated: bool) -> None:
    encoder = {"depth": 2, "registers": 1, "positions": positions, "repeat_positions": repeated}
    tokenizer = Ragged()
    model = model_of(tokenizer, encoder=encoder)
    x = tokenizer.of([12, 5], 14, torch.Generator().manual_seed(0))
    tokens = model.tokens(x)
    attention = model.encoder.class_attention(tokens)
    assert tokens.valid is not None
    assert (attention[~tokens.valid] == 0).all()
    assert (attention[tokens.valid] > 0).all()
    assert (attention.sum(1) < 1).all()  # the rest goes to class and register token
    alone = model.encoder.class_attention(model.tokens(x[1:, :5]))
    torch.testing.assert_close(attention[1, :5], alone[0], rtol=1e-5, atol=1e-6)
    # The values, by hand, from what the last block is given.
    block, prefix = model.encoder.blocks[-1], model.encoder.prefix
    given: list[Tensor] = []
    handle = block.norm1.register_forward_hook(lambda module, inputs, output: given.append(output))  # type: ignore[union-attr,operator]
    model.encoder.features(model.tokens(x[:1, :12]))
    handle.remove()
    if positions == "sincos":
        q, k, _ = block.qkv(given[0]).chunk(3, -1)  # type: ignore[operator,union-attr]
        shares = [((q[0, 0, h : h + 12] @ k[0, :, h : h + 12].T) / 12**0.5).softmax(-1) for h in (0, 12)]
        by_hand = torch.stack(shares).mean(0)[prefix:]
        torch.testing.assert_close(attention[0, :12], by_hand, rtol=1e-4, atol=1e-6)


def test_class_attention_needs_a_class_token() -> None:
    encoder = {"depth": 1, "class_token": False}
    model = model_of(Box(), encoder=encoder)
    tokens = model.tokens(signal())
    with pytest.raises(ConfigError, match="no class token"):
        model.encoder.class_attention(tokens)
