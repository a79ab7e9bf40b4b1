"""Numbers of tokens drawn where their tokens are, components by scikit-learn, errors by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from maskedmodel import MaskedAutoencoder
from maskedmodel.engine.positions import gather_tokens
from maskedmodel.evaluation import inside as module
from maskedmodel.evaluation.canvas import Sheet
from maskedmodel.evaluation.inside import Places, components, errors, inside
from maskedmodel.evaluation.reconstruct import fixed_mask
from maskedmodel.pictures.scales import ABSENT
from tests.evaluation.conftest import Grey, Leads, build

IDS = ["a", "b", "c"]


def drawn(batch: int, *shape: int) -> Tensor:
    return torch.rand(batch, *shape, generator=torch.Generator().manual_seed(1))


def test_each_pixel_has_the_number_of_its_token() -> None:
    tokenizer = Grey()
    tokens = tokenizer.tokenize(drawn(3, 1, 8, 8))
    values = drawn(3, 16, 2)
    picture = Places(tokenizer, tokens).of(values)
    expected = values.movedim(2, 1).reshape(3, 2, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(picture, expected)


def test_under_lines_each_lead_has_its_own(leads_model: MaskedAutoencoder) -> None:
    tokenizer = leads_model.tokenizer
    tokens = tokenizer.tokenize(drawn(2, 3, 16))
    values = torch.arange(24.0).reshape(2, 12, 1)
    picture = Places(tokenizer, tokens).of(values)[:, 0]
    for row in range(2):
        for token in range(12):
            chosen = torch.zeros(2, 12, dtype=torch.bool)
            chosen[row, token] = True
            own = tokenizer.footprint(tokens, chosen)
            assert own is not None
            assert bool(own[row].any())
            assert bool((picture[own] == row * 12 + token).all())


class Together(Leads):
    """Leads whose picture is their mean, so that each pixel shows three tokens."""

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        return signal.mean(1)[:, None, None].expand(-1, 3, 4, -1)

    def footprint(self, tokens: Any, chosen: Tensor) -> None:
        return None


def test_where_a_pixel_shows_several_tokens_it_has_their_mean() -> None:
    tokenizer = Together()
    tokens = tokenizer.tokenize(drawn(2, 3, 16))
    values = drawn(2, 12, 1)
    values[0, 1] = torch.nan  # a number that one of them lacks
    picture = Places(tokenizer, tokens).of(values)
    expected = values.reshape(2, 3, 4).nanmean(1).repeat_interleave(4, 1)[:, None, None].expand(-1, -1, 4, -1)
    torch.testing.assert_close(picture, expected)


def test_what_is_padding_is_grey() -> None:
    tokenizer = Grey()
    tokens = tokenizer.tokenize(drawn(1, 1, 8, 8))
    tokens = replace(tokens, valid=torch.arange(16)[None] < 12)
    picture = Places(tokenizer, tokens).of(drawn(1, 16, 1))
    assert bool(picture[..., 6:, :].isnan().all())
    assert not bool(picture[..., :6, :].isnan().any())


def test_components_are_those_of_scikit_learn() -> None:
    features = torch.randn(2, 30, 7, generator=torch.Generator().manual_seed(0)) * torch.arange(7, 0, -1)
    real = torch.ones(2, 30, dtype=torch.bool)
    real[1, 20:] = False
    features[~real] = 1e6  # padding has no say
    found = components(features, real)
    expected = PCA(3).fit_transform(features[real].numpy())
    low, high = np.quantile(expected, module._ENDS, axis=0)
    scaled = np.clip((expected - low) / (high - low), 0, 1)
    for axis in range(3):
        ours = found[real][:, axis].numpy()
        assert min(np.abs(ours - scaled[:, axis]).max(), np.abs(ours - (1 - scaled[:, axis])).max()) < 1e-3
    assert bool((found[~real] == 0).all())
    assert bool(torch.isfinite(components(features[:, :1, :2], real[:, :1])).all())  # fewer dimensions than colours


def test_errors_are_the_mean_over_the_masks_that_hide_a_token(
    model: MaskedAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.eval()
    tokens = model.tokens(drawn(3, 1, 8, 8))
    monkeypatch.setattr(module, "MASKS", 3)
    with torch.no_grad():
        found = errors(model, tokens, IDS, seed=4, progress=1.0)
        sums, counts = torch.zeros(3, 16), torch.zeros(3, 16)
        for draw in range(3):
            mask = fixed_mask(model, tokens, IDS, seed=4 + draw)
            prediction = gather_tokens(model.predict_everywhere(tokens, mask), mask.ids_hidden)
            losses = model.score(prediction, tokens, mask)
            for row in range(3):
                for place, token in enumerate(mask.ids_hidden[row].tolist()):
                    sums[row, token] += losses[row, place]
                    counts[row, token] += 1
    torch.testing.assert_close(found, torch.where(counts > 0, sums / counts, torch.nan), equal_nan=True)


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[Sheet]:
    kept: list[Sheet] = []
    real = Sheet.draw
    monkeypatch.setattr(Sheet, "draw", lambda self: (kept.append(self), real(self))[1])
    return kept


def test_a_picture_has_a_column_for_each_and_leaves_the_model_as_it_was(
    model: MaskedAutoencoder, sheets: list[Sheet]
) -> None:
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.random.get_rng_state()
    one, other = (inside(model, drawn(3, 1, 8, 8), IDS, step=7) for _ in range(2))
    assert one.tobytes() == other.tobytes()
    assert sheets[0].headings == ["original", "class token's attention", "tokens as colours", "where it errs"]
    assert "checkpoint of step 7" in sheets[0].title
    share = model.eval().encoder.class_attention(model.tokens(drawn(3, 1, 8, 8))) * 16
    assert sheets[0].captions is not None
    assert sheets[0].captions[1].startswith(f"b: attention {share[1].min():.2f} to {share[1].max():.2f} times")
    attention = sheets[0].rows[1][1].picture  # black where least, white where most
    least, most = (divmod(int(place), 4) for place in (share[1].argmin(), share[1].argmax()))
    assert bool((attention[:, 2 * least[0], 2 * least[1]] == 0).all())
    assert bool((attention[:, 2 * most[0], 2 * most[1]] == 1).all())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def test_what_a_model_lacks_is_left_out_with_a_word(
    model: MaskedAutoencoder, sheets: list[Sheet], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = build()
    settings = bare.settings.model_copy(
        update={"encoder": bare.settings.encoder.model_copy(update={"class_token": False})}
    )
    bare = MaskedAutoencoder(bare.tokenizer, bare.scheduler, bare.objective, settings)
    monkeypatch.setattr(MaskedAutoencoder, "gives_signals", lambda self: False)
    inside(bare, drawn(3, 1, 8, 8), IDS)
    assert sheets[0].headings == ["original", "tokens as colours"]
    said = " ".join(sheets[0].lines)
    assert "no class token" in said
    assert "no map of errors" in said
    assert sheets[0].captions == IDS


def test_a_token_that_no_mask_hides_is_grey(
    model: MaskedAutoencoder, sheets: list[Sheet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MASKS", 1)
    inside(model, drawn(3, 1, 8, 8), IDS)
    hidden = fixed_mask(model, model.tokens(drawn(3, 1, 8, 8)), IDS).hidden
    map_of_b = sheets[0].rows[1][3].picture[:, ::2, ::2].reshape(3, 16)
    assert torch.equal((map_of_b == ABSENT).all(0), ~hidden[1])
