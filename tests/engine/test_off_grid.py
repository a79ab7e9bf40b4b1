"""Tokens off a grid: coordinates per sample as real numbers, another number of tokens in each, an embedding that sees
both."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from maskedmodel import Settings, Tokenizer, Tokens
from maskedmodel.engine import kernels
from maskedmodel.engine.flops import flop_counter, forward_flops
from maskedmodel.errors import ShapeError
from tests.engine.conftest import model_of, noise

ENGINES: dict[str, dict[str, Any]] = {
    "sincos": {},
    "mlp": {"encoder": {"positions": "mlp"}, "decoder": {"positions": "mlp"}},
    "mlp, repeated": {
        "encoder": {"positions": "mlp", "repeat_positions": True},
        "decoder": {"positions": "mlp", "repeat_positions": True},
    },
    "rotary": {"encoder": {"positions": "rotary"}, "decoder": {"positions": "rotary"}},
    "mlp, cross": {"encoder": {"positions": "mlp"}, "decoder": {"positions": "mlp", "attention": "cross"}},
}


class Placed(nn.Module):
    """Values and places in one vector, through a hidden layer."""

    takes_coords = True

    def __init__(self, width: int, axes: int, dim: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width + axes, 12), nn.Linear(12, dim)

    def forward(self, values: Tensor, coords: Tensor) -> Tensor:
        assert values.shape[:-1] == coords.shape[:-1]
        out: Tensor = self.second(torch.relu(self.first(torch.cat([values, coords], -1))))
        return out


class SpotsSettings(Settings):
    name: Literal["spots"] = "spots"
    places: bool = True


class Spots(Tokenizer[SpotsSettings]):
    """(B, L, 6): four values, then where they stand; NaN in place of a spot that isn't there."""

    axes = ("x", "y")
    token_width = 4

    def tokenize(self, signal: Tensor) -> Tokens:
        if signal.dim() != 3 or signal.shape[2] != 6:
            raise ShapeError("Spots of six values are expected.", expected="(B, L, 6)", got=tuple(signal.shape))
        valid, plain = ~signal[..., 0].isnan(), signal.nan_to_num(0)
        return Tokens(plain[..., :4], plain[..., 4:], self.axes, valid=None if bool(valid.all()) else valid)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        return like.absent_as_nan(torch.cat([values, like.coords], -1))

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        return 3 * torch.randn(batch, 9, 6, generator=generator)

    def make_embed(self, dim: int) -> nn.Module:
        return Placed(4, 2, dim) if self.settings.places else super().make_embed(dim)


def spots(lengths: list[int]) -> Tensor:
    """Rows of these lengths, filled up with NaN."""
    whole = 3 * torch.randn(len(lengths), max(lengths), 6, generator=torch.Generator().manual_seed(1))
    return torch.stack(
        [
            row.masked_fill(torch.arange(len(row))[:, None] >= n, torch.nan)
            for row, n in zip(whole, lengths, strict=True)
        ]
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("places", [True, False])
def test_each_sample_is_as_it_is_alone(engine: str, places: bool) -> None:
    """Its own coordinates, its own number of tokens: loss, gradients and features don't know of the batch."""
    model = model_of(Spots(places=places), **ENGINES[engine])
    lengths, signal = [9, 4, 6], spots([9, 4, 6])
    tokens = model.tokens(signal)
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    output = model(signal, mask)
    total, count = signal.new_zeros(()), 0
    for row, length in enumerate(lengths):
        one = signal[row : row + 1, :length]
        whole = Tokens(one[..., :4], one[0, :, 4:], Spots.axes)  # one layout for all samples, where there is one sample
        alone = model(whole, type(mask)(mask.hidden[row : row + 1, :length]))
        total, count = total + alone.loss_per_token.sum(), count + alone.loss_per_token.numel()
        torch.testing.assert_close(model.encode(signal)[row, :length], model.encode(whole)[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(output.loss, total / count, rtol=1e-5, atol=1e-6)
    named = dict(model.named_parameters())
    slopes = [
        torch.autograd.grad(loss, list(named.values()), retain_graph=True) for loss in (output.loss, total / count)
    ]
    for name, ours, theirs in zip(named, *slopes, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_hidden_reaches_the_encoder_by_no_way(engine: str) -> None:
    """Neither its values nor where it stands; the decoder knows where, and not what."""
    model = model_of(Spots(), **ENGINES[engine])
    signal = spots([9, 4, 6])
    plain = model.tokens(signal)
    values, coords = plain.values.clone().requires_grad_(), plain.coords.clone().requires_grad_()
    tokens = Tokens(values, coords, Spots.axes, valid=plain.valid)
    mask = model.scheduler.sample(plain, 0.0, noise(3))
    output = model(tokens, mask)
    hidden = mask.hidden
    seen = output.latent if mask.keep_valid is None else output.latent[:, 1:][mask.keep_valid]
    of_values, of_coords = torch.autograd.grad(
        (seen * torch.randn_like(seen)).sum(), (values, coords), retain_graph=True
    )
    for slope in (of_values, of_coords):
        assert torch.count_nonzero(slope[~mask.visible]) == 0
        assert torch.count_nonzero(slope[mask.visible]) > 0
    scored = output.prediction[mask.hidden_valid]
    of_values, of_coords = torch.autograd.grad((scored * torch.randn_like(scored)).sum(), (values, coords))
    assert torch.count_nonzero(of_values[hidden]) == 0
    assert torch.count_nonzero(of_coords[hidden]) > 0


@pytest.mark.parametrize("engine", ["mlp", "mlp, repeated", "mlp, cross"])
def test_the_work_is_counted(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernels, "chosen_attention", kernels.Attention()
    )  # torch's counter doesn't know fused attention
    model = model_of(Spots(), **ENGINES[engine])
    tokens = model.tokens(spots([9, 9, 9]))
    mask = model.scheduler.sample(tokens, 0.0, noise(3))
    with flop_counter() as counter:
        model(tokens, mask)
    said = forward_flops(model, mask.ids_keep.shape[1], mask.ids_hidden.shape[1], 3, shared_positions=False)
    assert said.total == counter.get_total_flops()


def test_tables_need_a_grid() -> None:
    for kind in ("learned", "table", "interleaved"):
        with pytest.raises(ShapeError, match=r"need a grid.*(?s:.*)Use sincos, mlp or rotary"):
            model_of(Spots(), encoder={"positions": kind})


def test_half_precision_keeps_places_in_float32() -> None:
    model = model_of(Spots(), **ENGINES["mlp, repeated"])
    signal = spots([9, 4, 6])
    mask = model.scheduler.sample(model.tokens(signal), 0.0, noise(3))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(signal, mask).loss
    torch.testing.assert_close(loss, model(signal, mask).loss, rtol=5e-2, atol=5e-2)


def test_compiled_is_eager() -> None:
    model = model_of(Spots(), **ENGINES["mlp, repeated"])
    signal = spots([9, 4, 6])
    mask = model.scheduler.sample(model.tokens(signal), 0.0, noise(3))
    eager = model(signal, mask).loss
    torch._dynamo.reset()
    model.encoder.compile(backend="eager")
    model.decoder.compile(backend="eager")
    torch.testing.assert_close(model(signal, mask).loss, eager)
