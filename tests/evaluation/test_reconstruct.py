from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from maskedmodel_masks.uniform import Ramped

from maskedmodel import Mask, MaskedAutoencoder
from maskedmodel.errors import ConfigError, ShapeError
from maskedmodel.evaluation import canvas
from maskedmodel.evaluation.canvas import GREY, Sheet
from maskedmodel.evaluation.reconstruct import (
    complete,
    fixed_mask,
    masked_picture,
    pick_mode,
    pixels_of,
    preview,
    reconstruction,
)

IDS = ["a", "b", "c"]


@pytest.fixture
def signals() -> torch.Tensor:
    return torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    """Every sheet that is drawn: its text is what a reader of the picture sees."""
    drawn: list[Sheet] = []
    draw = Sheet.draw
    monkeypatch.setattr(Sheet, "draw", lambda self: (drawn.append(self), draw(self))[1])
    return drawn


def test_the_default_mode_never_borrows_what_was_hidden(model: MaskedAutoencoder, raw_model: MaskedAutoencoder) -> None:
    assert pick_mode(model) == "visible-stats"
    assert pick_mode(raw_model) == "raw"
    assert pick_mode(model, "oracle") == "oracle"


def test_modes_that_do_not_fit_are_refused(model: MaskedAutoencoder, raw_model: MaskedAutoencoder) -> None:
    with pytest.raises(ConfigError, match="predicts the values themselves"):
        pick_mode(raw_model, "oracle")
    with pytest.raises(ConfigError, match="normalise=false"):
        pick_mode(model, "raw")
    with pytest.raises(ConfigError, match="Did you mean 'oracle'"):
        pick_mode(model, "orakle")


def test_the_sheet_says_mode_ratio_and_step(
    model: MaskedAutoencoder, raw_model: MaskedAutoencoder, signals: torch.Tensor, sheets: list[Sheet]
) -> None:
    reconstruction(model, signals, IDS, mode="oracle", step=1200)
    reconstruction(model, signals, IDS)
    reconstruction(raw_model, signals, IDS)
    oracle, visible, raw = (f"{sheet.title} {' '.join(sheet.lines)}" for sheet in sheets)
    assert "oracle - uses hidden statistics" in oracle
    assert "1,200" in oracle
    assert "75.0% of the tokens hidden" in oracle
    assert "always predicting zero: 0.750" in oracle
    assert "visible-stats" in visible
    assert "oracle" not in visible
    assert "raw - the model predicts the values themselves" in raw
    assert sheets[0].facts["mode"].startswith("oracle - uses hidden statistics")


def test_columns_are_original_masked_reconstruction_and_pasted(
    model: MaskedAutoencoder, signals: torch.Tensor, sheets: list[Sheet]
) -> None:
    reconstruction(model, signals, IDS)
    tokens = model.tokens(signals)
    hidden = pixels_of(model.tokenizer, tokens, fixed_mask(model, tokens, IDS).hidden)
    for row in range(3):
        original, masked, plain, pasted = (panel.picture for panel in sheets[0].rows[row])
        torch.testing.assert_close(original, signals[row].expand(3, -1, -1))
        torch.testing.assert_close(masked[:, ~hidden[row]], original[:, ~hidden[row]])
        assert (masked[:, hidden[row]] == GREY).all()
        torch.testing.assert_close(pasted[:, ~hidden[row]], original[:, ~hidden[row]])
        torch.testing.assert_close(pasted[:, hidden[row]], plain[:, hidden[row]])
        assert not torch.allclose(plain[:, ~hidden[row]], original[:, ~hidden[row]])


@pytest.mark.parametrize("mode", [None, "oracle"])
def test_only_the_oracle_depends_on_hidden_values(
    model: MaskedAutoencoder, signals: torch.Tensor, sheets: list[Sheet], mode: str | None
) -> None:
    tokens = model.tokens(signals)
    hidden = pixels_of(model.tokenizer, tokens, fixed_mask(model, tokens, IDS).hidden)[:, None]
    reconstruction(model, signals, IDS, mode=mode)
    reconstruction(model, torch.where(hidden, 1 - signals, signals), IDS, mode=mode)
    first, second = ([panel.picture for row in sheet.rows for panel in row[1:]] for sheet in sheets)
    same = all(torch.allclose(a, b, atol=1e-6) for a, b in zip(first, second, strict=True))
    assert same == (mode is None)


def test_masks_are_fixed_by_id_whatever_the_batch(model: MaskedAutoencoder, signals: torch.Tensor) -> None:
    tokens = model.tokens(signals)
    together = fixed_mask(model, tokens, IDS).hidden
    alone = fixed_mask(model, tokens.rows(slice(1, 2)), IDS[1:2]).hidden
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together, fixed_mask(model, tokens, IDS, seed=1).hidden)


def test_pictures_are_reproducible_and_leave_the_model_as_it_was(
    model: MaskedAutoencoder, signals: torch.Tensor
) -> None:
    model.train()
    before = torch.get_rng_state()
    first, second = (np.asarray(reconstruction(model, signals, IDS, captions=IDS)) for _ in range(2))
    assert np.array_equal(first, second)
    assert model.encoder.training
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_error_of_a_picture_is_the_training_loss_and_the_model_runs_once(
    model: MaskedAutoencoder, signals: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = fixed_mask(model, model.tokens(signals), IDS)
    loss = float(model(signals, mask).loss.detach())
    runs = {"encoder": 0, "decoder": 0}

    def counted(name: str) -> None:
        forward = getattr(model, name).forward

        def count(*arguments: object) -> object:
            runs[name] += 1
            return forward(*arguments)

        monkeypatch.setattr(getattr(model, name), "forward", count)

    for name in runs:
        counted(name)
    assert complete(model, signals, IDS, mask=mask).error == pytest.approx(loss, rel=1e-5)
    assert runs == {"encoder": 1, "decoder": 1}


def test_a_mask_of_ones_own_is_used(model: MaskedAutoencoder, signals: torch.Tensor, sheets: list[Sheet]) -> None:
    hidden = torch.zeros(3, 16, dtype=torch.bool)
    hidden[:, :4] = True  # the top row of tokens
    reconstruction(model, signals, IDS, mask=Mask(hidden))
    assert "25.0%" in sheets[0].lines[1]
    assert (sheets[0].rows[0][1].picture[:, :2] == GREY).all()
    assert (sheets[0].rows[0][1].picture[:, 2:] != GREY).any()


def test_grey_where_every_token_of_a_pixel_is_hidden(leads_model: MaskedAutoencoder) -> None:
    """The default picture has a band of lines per lead: under a hidden token it is grey from top to bottom."""
    tokenizer = leads_model.tokenizer
    tokens = tokenizer.tokenize(torch.rand(2, 3, 16, generator=torch.Generator().manual_seed(0)))
    hidden = torch.zeros(2, 12, dtype=torch.bool)
    hidden[0, [0, 5]] = True  # lead 0 from 0 to 3, lead 1 from 4 to 7
    hidden[1, 11] = True
    grey = (masked_picture(tokenizer, tokens, Mask(hidden)) == GREY).all(1)
    bands = grey.unflatten(1, (3, -1)).unflatten(3, (16, -1)).transpose(2, 3)  # (sample, lead, step, rows and columns)
    expected = torch.zeros(2, 3, 16, dtype=torch.bool)
    expected[0, 0, 0:4] = expected[0, 1, 4:8] = expected[1, 2, 12:16] = True
    assert torch.equal(bands.flatten(3).all(3), expected)
    assert torch.equal(bands.flatten(3).any(3), expected)


def test_a_reconstruction_of_another_modality(leads_model: MaskedAutoencoder) -> None:
    image = reconstruction(leads_model, leads_model.tokenizer.example(2, torch.Generator().manual_seed(0)), [1, 2])
    assert image.width > canvas.WIDE


def test_preview_shows_tokens_and_masks_along_the_run(
    model: MaskedAutoencoder, signals: torch.Tensor, sheets: list[Sheet]
) -> None:
    preview(model.tokenizer, Ramped(start=0.25, end=0.75, levels=2), signals, IDS, captions=IDS)
    (sheet,) = sheets
    assert sheet.headings == ["tokens", "at 0%: 25.0% hidden", "at 50%: 25.0% hidden", "at 100%: 75.0% hidden"]
    assert "16 tokens of 4 values in a grid of 4 x 4 (height, width)" in sheet.lines[0]
    edges = sheet.rows[0][0].edges
    assert edges is not None
    assert [int(line.any(1).sum()) for line in (edges[0], edges[1].T)] == [3, 3]
    assert [int((panel.picture[0] == GREY).sum()) for panel in sheet.rows[0]] == [0, 16, 16, 48]


@pytest.mark.parametrize(("ids", "captions"), [(["a"], None), (IDS, ["x"]), ([], None)])
def test_ids_and_captions_go_with_signals(
    model: MaskedAutoencoder, signals: torch.Tensor, ids: list[str], captions: Any
) -> None:
    with pytest.raises(ShapeError, match="one id, and one caption"):
        reconstruction(model, signals, ids, captions=captions)
