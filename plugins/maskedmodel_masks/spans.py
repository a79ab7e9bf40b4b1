"""Masks of spans along a line of tokens, with exact counts (SpanBERT, Joshi et al. 2020; T5, Raffel et al. 2020).

As in T5 the number of hidden tokens and of spans follow from ratio and mean length, and all ways to divide the one by
the other are as likely; the lengths then fall off geometrically, as SpanBERT draws them. T5's masks begin with visible
tokens and end with hidden ones. Here a sample is closed to a ring and turned at random, so every token is as likely to
be hidden; a span across the ends is then two.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel_masks.ranking import real_counts, wanted
from maskedmodel_masks.schedules import Ratio
from maskedmodel_masks.uniform import RatioSettings, Scheduled


class SpansSettings(RatioSettings):
    """Spans of neighbouring tokens along one axis."""

    name: Literal["spans"] = "spans"
    ratio: Ratio = Field(
        0.15, validate_default=True, description="Share of a sample's tokens to hide, or a schedule of it."
    )
    mean: float = Field(
        3.0,
        ge=1,
        description="Mean length of a span, in tokens. Spans have a visible token between them, so where a high ratio "
        "leaves too few of those, there are fewer and longer ones.",
    )


class Spans(Scheduled[SpansSettings]):
    """Hides spans, so that what is hidden can't be guessed from the very next token."""

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """1 for tokens in a span, else 0. Raises ShapeError where tokens lie along several axes."""
        if len(tokens.axes) > 1:
            raise ShapeError(
                "Spans lie along one axis.",
                where="mask.name",
                expected="tokens of one axis, such as time or place",
                got=f"the axes {', '.join(tokens.axes)}",
                fix="Choose mask.name=blocks.",
            )
        hide = wanted(tokens, self.ratio(progress)).to(tokens.values.device)
        real = real_counts(tokens.values[..., 0], tokens.valid)
        spans = (hide / self.settings.mean).round().long().clamp(min=1)
        spans = torch.minimum(spans, torch.minimum(hide, real - hide))  # a gap between any two
        # Where spans begin among hidden tokens, and before which visible tokens they stand: both from the first on.
        begins = _first_and(noise.uniform(tokens.length, "mask/spans/lengths"), spans, hide)
        places = _first_and(noise.uniform(tokens.length, "mask/spans/places"), spans, real - hide)
        before = places.long().argsort(dim=1, descending=True, stable=True)  # of each span, in order
        number = torch.arange(tokens.length, device=hide.device).expand(len(hide), -1)
        turn = (noise.uniform(1, "mask/spans/turn") * real[:, None]).long()
        place = (before.gather(1, begins.long().cumsum(1) - 1) + number + turn) % real[:, None].clamp(min=1)
        hidden = torch.zeros(len(hide), tokens.length + 1, device=hide.device)
        hidden.scatter_(1, place.where(number < hide[:, None], tokens.length), 1.0)
        inside = hidden[:, : tokens.length]
        if tokens.valid is None:
            return inside
        return inside.gather(1, (tokens.valid.long().cumsum(1) - 1).clamp(min=0)) * tokens.valid


def _first_and(noise: Tensor, count: Tensor, among: Tensor) -> Tensor:
    """(B, N) bool: the first of N, and with it `count` (B,) of the first `among` (B,), any of them as likely."""
    number = torch.arange(noise.shape[1], device=noise.device)
    drawn = noise.masked_fill(number == 0, -1).masked_fill(number >= among[:, None].clamp(min=1), torch.inf)
    return drawn.argsort(dim=1, stable=True).argsort(dim=1) < count[:, None].clamp(min=1)
