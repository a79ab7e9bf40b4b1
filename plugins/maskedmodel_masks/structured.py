"""Masks that hide whole structures: tubes, strips, channels, and the same place in every channel.

Tokens that share a place are hidden together. The structure is exact: of the n places of a sample round(ratio * n)
are hidden, at least one and not all, whatever number of tokens that makes. So tubes over 14 x 14 cells at 0.9 hide 176
of 196 in every frame, as VideoMAE does. Only a sample with a single place, which can't be hidden as a whole, hides its
share of tokens one by one.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from fractions import Fraction
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Mask, MaskScheduler, Noise, Settings, Tokenizer, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel.tokens import hidden_count
from maskedmodel_masks.cells import Cells, axis_number, cells_along, channels_of, usual_sizes
from maskedmodel_masks.ranking import wanted
from maskedmodel_masks.schedules import Ratio, all_ratios, ratio_at, refuse_extremes
from maskedmodel_masks.uniform import RatioSettings

W = TypeVar("W", bound=Settings)


class Structured(MaskScheduler[W]):
    """Hides all tokens of a place together. A subclass says what the places are, and the share of them to hide."""

    @abstractmethod
    def layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        """Cells, and the share of them to hide. A token is hidden where any of its cells is."""

    def _layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        layers = self.layers(tokens, progress)
        for where, _ in layers:
            if where.count < 2:
                raise ShapeError(
                    f"Mask {self.component_name()!r} would hide everything: these tokens have a single place to hide.",
                    where="mask.name",
                    expected="2 or more",
                    got=f"{tokens.length} tokens, a grid of {tokens.grid} along {', '.join(tokens.axes)}",
                    fix="Choose another axis, smaller tokens or another mask.",
                )
        return layers

    def _hidden(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """(B, L) bool."""
        hidden = torch.zeros(tokens.batch, tokens.length, dtype=torch.bool, device=tokens.values.device)
        for number, (where, share) in enumerate(self._layers(tokens, progress)):
            drawn = noise.uniform(where.count, f"mask/places/{number}")
            hidden |= where.spread(Mask.from_scores(drawn, share, where.real(tokens)).hidden)
        return hidden

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """Tokens of hidden places first; noise decides among tokens that whole places can't decide on."""
        return self._hidden(tokens, progress, noise).float() + 0.5 * noise.uniform(tokens.length)

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor | int | None:
        layers = self._layers(tokens, progress)
        if all(where.even for where, _ in layers):
            # Each layer crosses the others, so what all of them leave visible is a product.
            kept = [Fraction(where.count - hidden_count(where.count, share), where.count) for where, share in layers]
            return tokens.length - int(tokens.length * math.prod(kept, start=Fraction(1)))
        hidden = self._hidden(tokens, progress, noise)
        if tokens.valid is not None:
            hidden &= tokens.valid
        count = hidden.sum(1)
        return torch.where(count > 0, count, wanted(tokens, self.ratio(progress)))


class TubeSettings(RatioSettings):
    """One mask, shared along an axis (VideoMAE, Tong et al. 2022)."""

    name: Literal["tube"] = "tube"
    axis: str = Field("time", description="Name of the axis along which tokens are hidden together.")
    ratio: Ratio = Field(0.9, validate_default=True, description="Share of the tubes to hide, or a schedule of it.")


class Tube(Structured[TubeSettings]):
    """A place is hidden at all times or never, so that nothing can be copied from another time."""

    def ratio(self, progress: float) -> float:
        return ratio_at(self.settings.ratio, progress)

    def layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        along = axis_number(tokens.axes, self.settings.axis, "mask.axis")
        others = [axis for axis in range(len(tokens.axes)) if axis != along]
        return [(cells_along(tokens, others, channels=True), self.ratio(progress))]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the axis isn't there, or the ratio hides none or all of the tubes."""
        along = axis_number(tokenizer.axes, self.settings.axis, "mask.axis")
        sizes = usual_sizes(tokenizer, [axis for axis in range(len(tokenizer.axes)) if axis != along])
        if sizes is not None:
            count = math.prod(sizes) * max(tokenizer.channel_count, 1)
            refuse_extremes(all_ratios(self.settings.ratio), count, "mask.ratio", f"tubes along {self.settings.axis}")


class StripsSettings(Settings):
    """Whole slices across an axis: all tokens of a time, of a frequency, or of both (AudioMAE, Huang et al. 2022)."""

    name: Literal["strips"] = "strips"
    shares: dict[str, Ratio] = Field(
        {"time": 0.75},
        min_length=1,
        validate_default=True,
        description="Share of the slices to hide, or a schedule of it, by name of the axis they lie across. With "
        "several axes a token is hidden where any of its slices is.",
    )


class Strips(Structured[StripsSettings]):
    """Hides times, frequencies, rows or columns as a whole."""

    def ratio(self, progress: float) -> float:
        return 1 - math.prod(1 - ratio_at(share, progress) for share in self.settings.shares.values())

    def layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        return [
            (
                cells_along(tokens, [axis_number(tokens.axes, axis, "mask.shares")], channels=False),
                ratio_at(share, progress),
            )
            for axis, share in self.settings.shares.items()
        ]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where an axis isn't there, or its share hides none or all of the slices across it."""
        for axis, share in self.settings.shares.items():
            sizes = usual_sizes(tokenizer, [axis_number(tokenizer.axes, axis, "mask.shares")])
            if sizes is not None:
                refuse_extremes(all_ratios(share), sizes[0], f"mask.shares.{axis}", f"slices across {axis}")


class ChannelsSettings(RatioSettings):
    """Whole channels, leads or variates."""

    name: Literal["channels"] = "channels"
    ratio: Ratio = Field(0.5, validate_default=True, description="Share of the channels to hide, or a schedule of it.")


class Channels(Structured[ChannelsSettings]):
    """Hides channels as a whole, so that they must be told from the others."""

    def ratio(self, progress: float) -> float:
        return ratio_at(self.settings.ratio, progress)

    def layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        channels_of(tokens)  # refuses tokens that carry none
        return [(cells_along(tokens, [], channels=True), self.ratio(progress))]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the ratio hides none or all of the tokenizer's channels."""
        if tokenizer.channel_count:
            refuse_extremes(all_ratios(self.settings.ratio), tokenizer.channel_count, "mask.ratio", "channels")


class AlignedSettings(RatioSettings):
    """The same place in every channel."""

    name: Literal["aligned"] = "aligned"


class Aligned(Structured[AlignedSettings]):
    """Hides a place in all channels or in none, so that nothing can be copied from another channel."""

    def ratio(self, progress: float) -> float:
        return ratio_at(self.settings.ratio, progress)

    def layers(self, tokens: Tokens, progress: float) -> list[tuple[Cells, float]]:
        channels_of(tokens)  # refuses tokens that carry none
        return [(cells_along(tokens, range(len(tokens.axes)), channels=False), self.ratio(progress))]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the ratio hides none or all of the places of a usual sample."""
        sizes = usual_sizes(tokenizer, range(len(tokenizer.axes)))
        if sizes is not None:
            refuse_extremes(all_ratios(self.settings.ratio), math.prod(sizes), "mask.ratio", "places")
