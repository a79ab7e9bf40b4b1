from dataclasses import replace
from typing import Any

import pytest
import torch
from maskedmodel_objectives.patch import Patch
from maskedmodel_signals.tokenizer import SignalsTokenizer
from torch import Tensor

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.errors import ShapeError
from maskedmodel.noise import Noise, seeded
from maskedmodel.plugins import load_registry

LEADS = ("Fp1", "Cz", "O2")


def tokenizer(leads: tuple[str, ...] = LEADS, **settings: Any) -> SignalsTokenizer:
    return SignalsTokenizer(**{"leads": leads, "length": 12, "patch": 4, "floor": 0, **settings})


def model_of(own: SignalsTokenizer) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=24, depth=2, heads=2), decoder=DecoderSettings(dim=16, depth=1, heads=2)
    )
    with seeded(0):
        uniform = load_registry().get("mask_scheduler", "uniform")(ratio=0.5)
        return MaskedAutoencoder(own, uniform, Patch(normalise=False), settings)


def signal(batch: int = 2, leads: int = 3, length: int = 12) -> Tensor:
    return torch.randn(batch, leads, length, generator=torch.Generator().manual_seed(1))


def test_tokens_are_patches_of_time_of_leads_that_are_somewhere() -> None:
    own, x = tokenizer(), signal()
    tokens = own.tokenize(x)
    assert tokens.values[0].tolist() == x[0].reshape(9, 4).tolist()
    assert tokens.coords[:, 0].tolist() == [0, 1, 2] * 3
    assert tokens.channel is not None
    assert tokens.channel_features is not None
    assert tokens.channel_features[[0, 3, 6]].tolist() == own.places.tolist()
    assert own.places[1].tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_leads_that_a_batch_lacks_cost_nothing_and_come_back_as_absent() -> None:
    own, x = tokenizer(), signal()
    x[:, 1] = torch.nan
    x[1, 0] = torch.nan
    tokens = own.tokenize(x)
    assert tokens.length == 6
    assert tokens.channel is not None
    assert tokens.channel.tolist() == [0, 0, 0, 2, 2, 2]
    assert tokens.valid is not None
    assert tokens.valid.tolist() == [[True] * 6, [False] * 3 + [True] * 3]
    torch.testing.assert_close(own.detokenize(tokens.values, tokens), x, equal_nan=True, rtol=0, atol=0)
    model = model_of(own)
    alone = model_of(tokenizer(("O2",)))
    alone.load_state_dict(model.state_dict())
    torch.testing.assert_close(model.embed(x)[1:], alone.embed(x[1:, 2:]), rtol=1e-5, atol=1e-6)


def test_weights_fit_any_montage_and_its_order() -> None:
    model, other = model_of(tokenizer()), model_of(tokenizer(("O2", "Fp1", "Cz")))
    other.load_state_dict(model.state_dict())
    x = signal()
    torch.testing.assert_close(other.embed(x[:, [2, 0, 1]]), model.embed(x), rtol=1e-5, atol=1e-6)
    unseen = model_of(tokenizer(("F3", "F4", "P3", "P4", "Pz")))
    unseen.load_state_dict(model.state_dict())
    assert torch.isfinite(unseen.embed(signal(leads=5))).all()
    # A lead by another name that is where Cz is, is Cz.
    renamed = model_of(tokenizer(("Fp1", "vertex", "O2"), places={"vertex": (0.0, 0.0, 1.0)}))
    renamed.load_state_dict(model.state_dict())
    torch.testing.assert_close(renamed.embed(x), model.embed(x), rtol=1e-5, atol=1e-6)


def test_record_keeps_the_sizes_of_leads_and_lead_does_not() -> None:
    x = signal() * torch.tensor([1.0, 5, 0.1])[:, None] + 7
    together, each = tokenizer().prepare(x), tokenizer(normalise="lead").prepare(x)
    torch.testing.assert_close(together.mean(2), torch.zeros(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(together.square().mean((1, 2)), torch.ones(2))
    sizes = x.std(2, correction=0)
    torch.testing.assert_close(
        together.std(2, correction=0) / together.std(2, correction=0)[:, :1], sizes / sizes[:, :1]
    )
    torch.testing.assert_close(each.std(2, correction=0), torch.ones(2, 3))
    # A lead that is absent has no say in how the others are normalised.
    lone = x.clone()
    lone[:, 1] = torch.nan
    torch.testing.assert_close(tokenizer().prepare(lone)[:, [0, 2]], tokenizer(("Fp1", "O2")).prepare(x[:, [0, 2]]))


def test_a_flat_record_is_not_blown_up() -> None:
    own = tokenizer(floor=0.5)
    assert own.needs_statistics
    own.fit_statistics([signal(64) * 4])
    assert float(own.spread) == pytest.approx(4, rel=0.1)
    assert not own.needs_statistics
    flat = 1e-3 * signal()
    assert float(own.prepare(flat).abs().max()) < 1e-2
    again = tokenizer(floor=0.5)
    again.load_state_dict(own.state_dict())
    assert not again.needs_statistics


def test_any_length_is_filled_up_at_the_end() -> None:
    prepared = tokenizer().prepare(signal(length=10))
    assert prepared.shape == (2, 3, 12)
    assert prepared[..., 10:].isnan().all()
    with pytest.raises(ShapeError, match="nearest: 8 or 12"):
        tokenizer().tokenize(signal(length=10))
    for wrong in (signal(leads=2), signal()[0], signal().int()):
        with pytest.raises(ShapeError, match="3 leads, samples"):
            tokenizer().tokenize(wrong)


def test_no_gradient_reaches_a_hidden_patch_or_an_absent_lead() -> None:
    own, x = tokenizer(), signal()
    x[0, 1] = torch.nan
    model = model_of(own)
    tokens = own.tokenize(x)
    values = tokens.values.clone().requires_grad_()
    mask = model.scheduler.sample(tokens, 0.0, Noise.of(range(2)))
    model(replace(tokens, values=values), mask).latent.square().sum().backward()
    assert tokens.valid is not None
    assert values.grad is not None
    assert (values.grad[mask.hidden | ~tokens.valid] == 0).all()
    assert (values.grad[mask.visible].abs().sum(-1) > 0).all()


def test_pictures_show_the_leads_that_are_there_by_their_names() -> None:
    own, x = tokenizer(rate=4.0), signal()
    x[:, 1] = torch.nan
    picture, tokens = own.picture(x), own.tokenize(x)
    scales = own.scales(x)
    assert scales.vertical is not None
    assert [name for _, name in scales.vertical.ticks] == ["Fp1", "O2"]
    assert scales.horizontal is not None
    assert scales.horizontal.title == "time, s"
    assert [text for _, text in scales.horizontal.ticks][-1] == "3"
    every = own.footprint(tokens, Mask.nothing(tokens).visible)
    assert every.shape == (2, *picture.shape[2:])
    assert every.all()
    many = SignalsTokenizer(leads="10-20", length=12, patch=4, floor=0)
    wide = many.scales(signal(leads=19))
    assert wide.vertical is not None
    assert [wide.vertical.ticks[0][1], wide.vertical.ticks[-1][1]] == ["Fp1", "O2"]
    assert len(wide.vertical.ticks) == 16


def test_the_power_spectrum_finds_a_tone() -> None:
    own = tokenizer(rate=100.0)
    tone = torch.sin(2 * torch.pi * 10 * torch.arange(400) / 100).expand(2, 3, -1)
    power = own.plain_features(tone)["power spectrum"]
    assert power.argmax(1).tolist() == [8, 8]  # of 32 bands of 1.25 Hz
