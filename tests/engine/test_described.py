"""Channels that are known by what describes them: identity by description, order of no account, nothing leaks."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from maskedmodel import GridTokenizer, Mask, MaskedAutoencoder, Settings, Tokens
from maskedmodel.engine.positions import PositionEmbedding, sincos
from maskedmodel.errors import ShapeError
from tests.engine.conftest import Box, model_of, noise

PLACES = torch.tensor([[0.5, -1.0], [0.0, 1.5], [-2.0, 0.3], [1.0, 1.0]])  # what describes four channels


class LeadsSettings(Settings):
    name: Literal["described-leads"] = "described-leads"
    channels: int = Field(4, description="Channels.")
    length: int = Field(12, description="Length.")
    patch: int = Field(3, description="Length of a token.")
    numbered: bool = Field(False, description="Whether each channel has a learned vector of its own beside it.")


class Leads(GridTokenizer[LeadsSettings]):
    """Channels by the rows of `described`, which a test may exchange."""

    axes = ("time",)
    separate_channels = True
    channel_features = 2

    def __init__(self, settings: LeadsSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.channel_count = self.channels if self.settings.numbered else 0
        self.described = PLACES

    def tokenize(self, signal: Tensor) -> Tokens:
        tokens = super().tokenize(signal)
        assert tokens.channel is not None
        return replace(tokens, channel_features=self.described.to(signal)[tokens.channel])


def signal(batch: int = 3, channels: int = 4) -> Tensor:
    return torch.randn(batch, channels, 12, generator=torch.Generator().manual_seed(1))


def described(tokens: Tokens) -> Tensor:
    assert tokens.channel_features is not None
    return tokens.channel_features


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rotary": {"encoder": {"positions": "rotary"}, "decoder": {"positions": "rotary"}},
    "learned": {"encoder": {"positions": "learned"}},
    "cross": {"decoder": {"attention": "cross"}},
}


def test_places_add_what_two_layers_make_of_a_description() -> None:
    model = model_of(Leads())
    places = model.encoder.places
    tokens = model.tokens(signal())
    layers = places.description
    assert layers is not None
    w1, b1, w2, b2 = (p.detach().double() for p in layers.parameters())
    x = PLACES.double().repeat_interleave(4, 0) @ w1.T + b1
    x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    expected = sincos(tokens.coords, 24).double() + x @ w2.T + b2
    torch.testing.assert_close(places(*tokens.layout).detach().double(), expected, rtol=1e-5, atol=1e-6)


def test_a_number_and_a_description_add_up() -> None:
    places = PositionEmbedding("sincos", 8, 2, (4,), 4, 1, 2)
    coords, channel = torch.arange(4)[:, None], torch.tensor([0, 3, 1, 9])
    assert places.description is not None
    assert places.channels is not None
    own = places.channels.weight[[0, 3, 1, 0]] * torch.tensor([1.0, 1, 1, 0])[:, None]
    total = places(coords, (4,), channel, PLACES)
    torch.testing.assert_close(total, sincos(coords, 8) + own + places.description(PLACES))


@pytest.mark.parametrize("variant", VARIANTS)
def test_permuting_channels_with_their_descriptions_permutes_the_result(variant: str) -> None:
    model, order = model_of(Leads(), **VARIANTS[variant]), torch.tensor([2, 0, 3, 1])
    x = signal()
    tokens = model.tokens(x)
    moved = torch.arange(16).unflatten(0, (4, 4))[order].flatten()  # tokens channel by channel
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    before, features = model(tokens, mask), model.encode(x)
    assert isinstance(model.tokenizer, Leads)
    model.tokenizer.described = PLACES[order]
    permuted = model.tokens(x[:, order])
    other = Mask(mask.hidden[:, moved])
    torch.testing.assert_close(model.encode(x[:, order]), features[:, moved], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(permuted, other).loss, before.loss, rtol=1e-5, atol=1e-6)
    everywhere = model.predict_everywhere(tokens, mask)
    torch.testing.assert_close(model.predict_everywhere(permuted, other), everywhere[:, moved], rtol=1e-4, atol=1e-5)
    # The order of the channels is of no account, what describes them is.
    model.tokenizer.described = PLACES
    assert not torch.allclose(model.encode(x[:, order]), features[:, moved], rtol=1e-2, atol=1e-2)


def test_a_channel_never_met_that_is_described_as_a_known_one_is_encoded_as_it() -> None:
    model = model_of(Leads())
    tokens = model.tokens(signal())
    assert tokens.channel is not None
    unknown = replace(tokens, channel=tokens.channel + 1000)
    assert torch.equal(model.encode(unknown), model.encode(tokens))
    elsewhere = replace(tokens, channel_features=described(tokens) + 1)
    assert not torch.allclose(model.encode(elsewhere), model.encode(tokens), atol=1e-2)


def test_any_number_of_channels_goes_through_one_model() -> None:
    model = model_of(Leads())
    assert isinstance(model.tokenizer, Leads)
    for count in (1, 2, 19):
        model.tokenizer.described = torch.randn(count, 2, generator=torch.Generator().manual_seed(count))
        assert model.encode(signal(2, count)).shape == (2, 4 * count, 24)


@pytest.mark.parametrize("attention", ["self", "cross"])
def test_descriptions_of_each_sample_are_as_good_as_shared_ones(attention: str) -> None:
    model = model_of(Leads(), decoder={"attention": attention})
    tokens = model.tokens(signal())
    own = replace(tokens, channel_features=described(tokens).expand(3, -1, -1))
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    torch.testing.assert_close(model(own, mask).loss, model(tokens, mask).loss)
    mixed = described(own).clone()
    mixed[1] = mixed[1].flip(0)
    mixed_tokens = replace(tokens, channel_features=mixed)
    whole = model.encode(mixed_tokens)
    for row in range(3):
        alone = replace(tokens.rows(slice(row, row + 1)), channel_features=mixed[row])
        torch.testing.assert_close(model.encode(alone)[0], whole[row], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            model.encode(mixed_tokens.rows(slice(row, row + 1)))[0], whole[row], rtol=1e-5, atol=1e-6
        )


def test_what_describes_padding_moves_nothing() -> None:
    model = model_of(Leads())
    tokens = model.tokens(signal())
    valid = torch.arange(16) < torch.tensor([16, 12, 8])[:, None]
    features = described(tokens).expand(3, -1, -1).clone().requires_grad_()
    ragged = replace(tokens, valid=valid, channel_features=features)
    mask = model.scheduler.sample(ragged, 0.0, noise(3))
    output = model(ragged, mask)
    output.loss.backward()
    assert features.grad is not None
    assert (features.grad[~valid] == 0).all()
    assert (features.grad[valid].abs().sum(-1) > 0).all()
    other = replace(ragged, channel_features=torch.where(valid[..., None], features, 7.0))
    assert torch.equal(model(other, mask).loss, output.loss)


def test_the_encoder_hears_nothing_of_hidden_tokens() -> None:
    """What describes a channel whose tokens are all hidden reaches the decoder alone."""
    model = model_of(Leads())
    tokens = model.tokens(signal())
    features = described(tokens).clone().requires_grad_()
    mask = Mask((torch.arange(16) < 4).expand(3, -1).contiguous())
    output = model(replace(tokens, channel_features=features), mask)
    output.latent.square().sum().backward(retain_graph=True)
    assert features.grad is not None
    assert (features.grad[:4] == 0).all()
    assert (features.grad[4:] != 0).all()
    features.grad = None
    output.loss.backward()
    assert (features.grad[:4] != 0).all()
    assert all(parameter.grad is not None for parameter in model.parameters())  # so none is unused between ranks


def test_a_model_may_be_kept_from_the_descriptions() -> None:
    model = model_of(Leads(), encoder={"channels": False})
    assert model.encoder.places.description is None
    assert model.decoder.places.description is not None
    tokens = model.tokens(signal())
    features = described(tokens).clone().requires_grad_()
    blind = replace(tokens, channel_features=features)
    assert torch.equal(model.encode(blind), model.encode(replace(tokens, channel_features=None)))
    assert torch.autograd.grad(model.encode(blind).sum(), features, allow_unused=True) == (None,)


def test_without_descriptions_nothing_is_added() -> None:
    model = model_of(Box(separate=True))
    assert not [name for name in model.state_dict() if "description" in name]


@pytest.mark.parametrize("features", [None, torch.zeros(16, 3)])
def test_tokens_that_are_not_described_are_refused(features: Tensor | None) -> None:
    model = model_of(Leads())
    tokens = replace(model.tokens(signal()), channel_features=features)
    with pytest.raises(ShapeError, match="knows channels by what describes them") as error:
        model.encode(tokens)
    assert "(L, 2)" in str(error.value)


def test_descriptions_keep_their_digits_under_bf16() -> None:
    places = PositionEmbedding("rotary", 8, 2, None, 0, 1, 2)
    coords = torch.zeros(4, 1)
    exact = places(coords, None, None, PLACES)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(places(coords, None, None, PLACES), exact)
    assert exact.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_equals_eager() -> None:
    eager, compiled = model_of(Leads()), model_of(Leads())
    compiled.compile_engine()
    tokens = eager.tokens(signal())
    mask = eager.scheduler.sample(tokens, 0.0, noise(3))
    torch.testing.assert_close(compiled(tokens, mask).loss, eager(tokens, mask).loss, rtol=1e-5, atol=1e-6)


def test_a_graph_takes_described_channels() -> None:
    class Encode(nn.Module):
        def __init__(self, model: MaskedAutoencoder) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model.encode(x)

    model = model_of(Leads()).eval()
    batch = {0: torch.export.Dim("batch", min=1)}
    graph = torch.export.export(Encode(model), (signal(2),), dynamic_shapes=(batch,)).module()
    torch.testing.assert_close(graph(signal(5)), model.encode(signal(5)), rtol=1e-5, atol=1e-6)
