"""The default pictures of signals of any layout: of a size that can be read, and true to the values."""

from __future__ import annotations

import pydoc

import pytest
import torch

from maskedmodel import Mask, Tokenizer
from maskedmodel.evaluation.reconstruct import masked_picture
from maskedmodel.pictures import ABSENT, montage
from tests.engine.conftest import Box


@pytest.mark.parametrize(
    "shape",
    [(1800,), (9, 1800), (12, 600), (1, 7), (40, 2000), (3, 16, 16), (1, 4, 8, 8), (2, 30, 12, 20), (20, 8, 8)],
    ids=str,
)
def test_a_default_picture_is_no_strip(shape: tuple[int, ...]) -> None:
    signal = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    picture = Box().picture(signal)
    assert picture.shape[:2] == (2, 3)
    height, width = picture.shape[2:]
    assert 1 / 8 < height / width < 8
    assert float(picture.min()) >= 0
    assert float(picture.max()) <= 1


def test_lines_follow_the_values() -> None:
    """A ramp is inked from the lower left to the upper right; a missing end stays empty."""
    ramp = torch.linspace(0, 1, 400)[None, None]
    ramp[..., 300:] = torch.nan
    inked = (Box().picture(ramp)[0, 0] < 0.5).float()
    rows = torch.arange(inked.shape[0])[:, None]
    heights = (rows * inked).sum(0) / inked.sum(0).clamp(min=1)
    assert heights[10] > heights[150] > heights[290]
    assert not inked[:, 301:].any()


def test_a_montage_holds_every_slice_once() -> None:
    volume = torch.arange(2 * 5 * 3 * 4).reshape(1, 2, 5, 3, 4).float()
    sheet = montage(volume)
    assert sheet.shape == (1, 3 * 4 - 1, 4 * 5 - 1)
    assert sorted(sheet[~sheet.isnan()].tolist()) == volume.flatten().tolist()


def test_hidden_tokens_of_a_line_are_grey_columns() -> None:
    """Token 1 of 4 covers the second quarter of the time, in both channels; with channels apart, in its own."""
    signal = torch.randn(1, 2, 80, generator=torch.Generator().manual_seed(0))
    together = Box(size=(80,), patch=(20,), channels=2)
    tokens = together.tokenize(signal)
    hidden = torch.zeros(1, 4, dtype=torch.bool)
    hidden[0, 1] = True
    grey = (masked_picture(together, tokens, Mask(hidden)) - ABSENT).abs().amax(1)[0] < 0.02
    width = grey.shape[1]
    assert grey[:, width // 4 : width // 2].all()
    assert not grey[:, : width // 4].any()
    assert not grey[:, width // 2 :].any()
    apart = Box(size=(80,), patch=(20,), channels=2, separate=True)
    tokens = apart.tokenize(signal)
    hidden = torch.zeros(1, 8, dtype=torch.bool)
    hidden[0, 5] = True
    grey = (masked_picture(apart, tokens, Mask(hidden)) - ABSENT).abs().amax(1)[0] < 0.02
    half = grey.shape[0] // 2
    assert grey[half:, width // 4 : width // 2].all()
    assert not grey[:half].any()


def test_help_on_a_tokenizer_begins_with_its_own_attributes() -> None:
    text = pydoc.plain(pydoc.render_doc(Tokenizer)).splitlines()[:45]
    for name in ("token_width", "accepts_nan", "channel_count", "shared_with_data", "round_trip_tolerance", "axes"):
        assert any(line.strip(" |").startswith(f"{name}:") for line in text), name
