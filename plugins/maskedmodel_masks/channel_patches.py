"""Channels hidden whole beside patches hidden at random (ChA-MAEViT, Pham et al. 2025)."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Mask, Noise, Tokenizer, Tokens
from maskedmodel.errors import ConfigError
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel.tokens import hidden_count
from maskedmodel_masks.cells import SHARED, cells_along, channels_of
from maskedmodel_masks.ranking import wanted
from maskedmodel_masks.schedules import Ratio, all_ratios, ratio_at, refuse_extremes
from maskedmodel_masks.uniform import RatioSettings, Scheduled


class ChannelPatchesSettings(RatioSettings):
    """Some channels are hidden whole, and of the others random tokens, after ChA-MAEViT (Pham et al. 2025)."""

    name: Literal["channel_patches"] = "channel_patches"
    channels: Ratio = Field(
        0.4,
        validate_default=True,
        description="Share of the channels to hide whole, between 0 and 1, or a schedule of it, as of ratio.",
    )
    shared: bool = Field(False, description=SHARED)


class ChannelPatches(Scheduled[ChannelPatchesSettings]):
    """Hidden channels must be told from others, hidden patches from what lies around them too.

    The ratio is that of all tokens together, those of hidden channels counted. Whole channels come first: where they
    are more than the ratio's tokens in a sample, they stay whole, and nothing else is hidden of it.
    """

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where channels or tokens can't be hidden by such shares, or more channels than fit."""
        super().attach(tokenizer, encoder)
        count, shares = tokenizer.channel_count, all_ratios(self.settings.channels)
        if not count:
            return
        refuse_extremes(shares, count, "mask.channels", "channels")
        most, least = max(hidden_count(count, share) for share in shares), min(all_ratios(self.settings.ratio))
        if most / count > least:
            raise ConfigError(
                f"{most} hidden channels of {count} are more tokens than the ratio hides.",
                where="mask.channels, mask.ratio",
                expected=f"a ratio of {most / count:.3g} or more at every step",
                got=f"{least:.3g}",
                fix="Set mask.ratio higher or mask.channels lower; for whole channels alone choose mask.name=channels.",
            )

    def _hidden(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """(B, L) bool, the tokens of hidden channels."""
        channels_of(tokens)  # refuses tokens that carry none
        where = cells_along(tokens, [], channels=True)
        drawn, share = noise.uniform(where.count, "mask/channels"), ratio_at(self.settings.channels, progress)
        return where.spread(Mask.from_scores(drawn, share, where.real(tokens)).hidden)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        hidden, drawn = self._hidden(tokens, progress, noise), noise.uniform(tokens.length)
        if self.settings.shared:  # a place in every channel, noise among the channels of one
            places = cells_along(tokens, range(len(tokens.axes)), channels=False)
            drawn = places.spread(noise.uniform(places.count, "mask/places")) + 2.0**-24 * drawn
        return 2 * hidden.float() + drawn

    def counts(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor | int | None:
        ratio = self.ratio(progress)
        if tokens.grid is not None and tokens.valid is None:
            count = channels_of(tokens)[1]
            whole = tokens.length // count * hidden_count(count, ratio_at(self.settings.channels, progress))
            return max(whole, hidden_count(tokens.length, ratio))
        hidden = self._hidden(tokens, progress, noise)
        if tokens.valid is not None:
            hidden = hidden & tokens.valid
        return torch.maximum(hidden.sum(1), wanted(tokens, ratio))
