"""Fields of different channels and sizes in one batch: each as if it were alone, whoever its neighbours are."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from maskedmodel_microscopy.tiff_folder import TiffFolder
from maskedmodel_microscopy.tokenizer import ChannelsTokenizer
from maskedmodel_objectives.fourier import Fourier
from maskedmodel_objectives.patch import Patch
from torch import Tensor

from maskedmodel import Mask, MaskedAutoencoder, Objective
from maskedmodel.engine.settings import DecoderSettings, EncoderSettings, ModelSettings
from maskedmodel.noise import Noise, seeded
from maskedmodel.testing.fixtures import Fixed

OBJECTIVES = [Patch(normalise=False), Patch(), Fourier(share=0.3)]


def model(objective: Objective[Any] | None = None, encoder_knows: bool = True, **values: Any) -> MaskedAutoencoder:
    settings = ModelSettings(
        encoder=EncoderSettings(dim=32, depth=2, heads=2, channels=encoder_knows, **values),
        decoder=DecoderSettings(dim=16, depth=2, heads=2, **values),
    )
    with seeded(0):
        tokenizer = ChannelsTokenizer(size=32, patch=8, channels=5)
        return MaskedAutoencoder(tokenizer, Fixed(), objective or Patch(normalise=False), settings).eval()


def fields() -> list[Tensor]:
    """Fields of 2, 5, 3 and 1 channels in slots of their own; the third is smaller than a window, one token partly."""
    draw = torch.Generator().manual_seed(0)
    found = []
    for slots, extents in (([1, 3], (32, 32)), ([0, 1, 2, 3, 4], (32, 32)), ([0, 2, 4], (20, 27)), ([4], (40, 32))):
        field = torch.full((5, *extents), torch.nan)
        field[slots] = torch.rand(len(slots), *extents, generator=draw)
        found.append(field)
    return found


def prepared(own: MaskedAutoencoder) -> Tensor:
    return own.tokenizer.prepare(own.tokenizer.collate(fields()))


def masks(own: MaskedAutoencoder, signal: Tensor) -> tuple[Mask, list[Mask]]:
    """The mask of a batch, and the same one for each sample by itself."""
    tokens = own.tokens(signal)
    whole = own.scheduler.sample(tokens, 0.0, Noise.of(list(range(len(signal)))))
    alone = [Mask(whole.hidden[i : i + 1, : own.tokens(signal[i : i + 1]).length]) for i in range(len(signal))]
    return whole, alone


@pytest.mark.parametrize("objective", OBJECTIVES, ids=["values", "normalised", "fourier"])
@pytest.mark.parametrize("values", [{}, {"positions": "rotary"}])
def test_each_sample_has_the_loss_it_has_alone(objective: Objective[Any], values: dict[str, Any]) -> None:
    own = model(objective, **values)
    signal = prepared(own)
    whole, alone = masks(own, signal)
    together = own(signal, whole)
    for row, mask in enumerate(alone):
        by_itself = own(signal[row : row + 1], mask)
        assert whole.hidden_valid is not None
        losses = together.loss_per_token[row][whole.hidden_valid[row]]
        torch.testing.assert_close(losses, by_itself.loss_per_token[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(losses.mean(), by_itself.loss, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("encoder_knows", [True, False])
def test_features_are_those_of_the_sample_alone(encoder_knows: bool) -> None:
    own = model(encoder_knows=encoder_knows)
    signal = prepared(own)
    together = own.embed(signal)
    for row in range(len(signal)):
        torch.testing.assert_close(together[row], own.embed(signal[row : row + 1])[0], atol=1e-6, rtol=1e-5)


def test_slots_that_nobody_has_change_nothing() -> None:
    own = model()
    signal = prepared(own)
    wider = torch.cat([signal, torch.full((4, 3, 32, 32), torch.nan)], 1)
    assert torch.equal(own.embed(wider), own.embed(signal))


def test_nothing_of_a_sample_reaches_another() -> None:
    own = model()
    signal = prepared(own)
    changed = signal.clone()
    changed[1] = 3 - changed[1]
    before, after = own.embed(signal), own.embed(changed)
    assert torch.equal(before[[0, 2, 3]], after[[0, 2, 3]])
    assert not torch.equal(before[1], after[1])


def test_a_hidden_token_reaches_the_encoder_through_no_channel() -> None:
    """The latent has no gradient in hidden values, of the same channel or of others, nor in what isn't there."""
    own = model()
    signal = prepared(own)
    tokens = own.tokens(signal)
    whole, _ = masks(own, signal)
    values = tokens.values.clone().requires_grad_()
    own(replace(tokens, values=values), whole).latent.square().sum().backward()
    assert values.grad is not None
    reached = values.grad.abs().sum(-1) > 0
    assert torch.equal(reached, whole.visible)


def test_no_loss_falls_on_pixels_that_are_not_there() -> None:
    own = model(Fourier(share=0.3))
    tokens = own.tokens(prepared(own))
    whole, _ = masks(own, prepared(own))
    assert tokens.observed is not None
    kept: list[Tensor] = []
    own.decoder.head.register_forward_hook(lambda _, __, out: kept.append(out))
    loss = own(tokens, whole).loss
    (prediction,) = kept
    prediction.retain_grad()
    loss.backward()
    assert prediction.grad is not None
    observed = tokens.observed.gather(1, whole.ids_hidden[..., None].expand(-1, -1, 64))
    assert whole.hidden_valid is not None
    there = observed & whole.hidden_valid[..., None]
    assert prediction.grad[~there].eq(0).all()
    assert prediction.grad[there].ne(0).float().mean() > 0.99


def test_a_blind_encoder_doesnt_care_which_channel_is_which() -> None:
    signal = prepared(model())[1:2]
    swapped = signal[:, [4, 0, 3, 1, 2]]
    blind, knowing = model(encoder_knows=False), model()
    torch.testing.assert_close(blind.embed(signal), blind.embed(swapped), atol=1e-6, rtol=1e-5)
    assert (knowing.embed(signal) - knowing.embed(swapped)).abs().max() > 1e-3


def test_channels_never_met_are_encoded_without_identity() -> None:
    """Two slots beyond the known ones are alike, and neither is like a known one."""
    own = model()
    field = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    placed = {slot: torch.full((1, 9, 32, 32), torch.nan) for slot in (0, 5, 8)}
    for slot, signal in placed.items():
        signal[:, slot] = field[:, 0]
    features = {slot: own.embed(own.tokenizer.prepare(signal)) for slot, signal in placed.items()}
    torch.testing.assert_close(features[5], features[8], atol=0, rtol=0)
    assert (features[0] - features[5]).abs().max() > 1e-3


@pytest.mark.parametrize("channels", [1, 4, 6, 11])
def test_any_number_of_channels_is_encoded(channels: int) -> None:
    own = model(encoder_knows=False)
    stored = torch.randint(0, 256, (2, channels, 40, 36), dtype=torch.uint8)
    assert torch.isfinite(own.embed(own.tokenizer.prepare(stored))).all()
    assert own.encode(own.tokenizer.prepare(stored)).shape == (2, 16 * channels, 32)


def test_a_reconstruction_has_the_channels_of_its_sample_and_no_others() -> None:
    own = model()
    signal = prepared(own)
    whole, _ = masks(own, signal)
    completed = own.reconstruct(signal, whole)
    assert torch.equal(completed.isnan(), signal.isnan())


REAL = os.environ.get("MASKEDMODEL_DATA")


@pytest.mark.skipif(REAL is None, reason="MASKEDMODEL_DATA isn't set: real fields are not part of the repository")
class TestReal:
    def test_fields_of_five_assays_share_a_batch(self) -> None:
        source = TiffFolder(path=f"{REAL}/microscopy", group="label", tile=256)
        train = source.open("train")
        assert len(train) + len(source.open("val")) == 119  # 116 files, of which one gives four tiles
        own = ChannelsTokenizer(size=64, patch=8, channels=16)
        samples = {sample["id"].split("/")[0]: sample for sample in map(train.__getitem__, range(len(train)))}
        batch = own.collate([sample["signal"] for sample in samples.values()])
        tokens = own.tokenize(own.augment(batch, Noise.of(list(samples))))
        assert tokens.valid is not None
        assert {int(count) for count in tokens.valid.sum(1)} >= {128, 192, 320}

    def test_the_example_makes_channels_that_can_be_encoded(self, tmp_path: Path) -> None:
        script = Path(__file__).parents[3] / "examples" / "new_channels.py"
        command = [sys.executable, str(script), f"{REAL}/microscopy", str(tmp_path / "six"), "--fields", "3"]
        assert "3 fields of 6 channels" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
        kept = TiffFolder(path=f"{REAL}/microscopy").resolved()
        other = TiffFolder(kept.model_copy(update={"path": str(tmp_path / "six"), "group": None}))
        signal = other.open("train")[0]["signal"]
        own = model(encoder_knows=False)
        assert own.encode(own.tokenizer.prepare(signal[None])).shape[1] == 6 * 16
