"""Masks of rectangular blocks, along any number of axes (BEiT, Bao et al. 2021), with exact counts.

BEiT adds rectangles one after the other until enough is hidden, and so hides a number that varies. Here all rectangles
of a batch are drawn at once and ranked: the first ones are hidden as a whole, the last one shrinks towards its centre
until the count is met, and where all of them together are too small, they grow. A rectangle may hang over the edge:
its centre comes from a range that makes every token as likely to be in it.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel_masks.cells import channels_of
from maskedmodel_masks.uniform import RatioSettings, Scheduled

MOST = 64  # blocks per sample: beyond that the smallest sizes at the highest ratios let blocks grow


class BlocksSettings(RatioSettings):
    """Rectangular blocks (BEiT, Bao et al. 2021)."""

    name: Literal["blocks"] = "blocks"
    smallest: float = Field(0.08, gt=0, lt=1, description="Share of a sample's extent that the smallest block covers.")
    largest: float = Field(0.25, gt=0, lt=1, description="Share of a sample's extent that the largest block covers.")
    aspect: float = Field(
        0.3,
        gt=0,
        le=1,
        description="How much narrower than the sample's own shape a block may be; 1 = all have the sample's shape.",
    )
    shared: bool = Field(False, description="Whether the same blocks are hidden in every channel.")

    @model_validator(mode="after")
    def _ordered(self) -> BlocksSettings:
        if self.smallest > self.largest:
            raise ValueError(f"smallest must not be above largest, got {self.smallest:g} and {self.largest:g}")
        return self


class Blocks(Scheduled[BlocksSettings]):
    """Hides rectangles, so that what is hidden can't be guessed from the next token. Works off the grid too."""

    def blocks(self, ratio: float, axes: int) -> int:
        """How many blocks are drawn for a sample: half as many again as hide `ratio` where they overlap at random."""
        side = ((self.settings.smallest + self.settings.largest) / 2) ** (1 / axes)
        covered = (side / (1 + side)) ** axes  # of what hangs over the edge nothing is left
        return min(max(math.ceil(1.5 * math.log(1 - ratio) / math.log(1 - covered)), 2), MOST)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """Tokens of the first block come first, its centre before its edge; at last those near a block."""
        coords = (tokens.coords if tokens.coords.dim() == 3 else tokens.coords[None]).float()
        centre, half = self._drawn(tokens, coords, progress, noise)
        if centre.shape[1] > 1:  # blocks of its own for every channel: take those of each token's
            channel = channels_of(tokens)[0][..., None, None].expand(tokens.batch, -1, *centre.shape[2:])
            centre, half = centre.gather(1, channel), half.gather(1, channel)
        away = ((coords[:, :, None] - centre).abs() / half).amax(-1)  # (B, L, N): 0 at the centre, 1 at the edge
        first = torch.arange(away.shape[-1], 0, -1, device=coords.device)
        best = torch.where(away <= 1, first + 0.5 * (1 - away), -away).amax(-1)
        return best + 0.01 * noise.uniform(tokens.length)  # tokens of one ring are as likely

    def _drawn(self, tokens: Tokens, coords: Tensor, progress: float, noise: Noise) -> tuple[Tensor, Tensor]:
        """Centres and half sides (B, C, N, A) of N blocks for each of C channels, in cells."""
        s, axes = self.settings, len(tokens.axes)
        count = 1 if tokens.channel is None or s.shared else channels_of(tokens)[1]
        number = self.blocks(self.ratio(progress), axes)
        low, high = _range(coords, tokens.valid)
        low, high = low[:, None, None], high[:, None, None]
        drawn = noise.uniform(count * number * (2 * axes + 1), "mask/blocks")
        drawn = drawn.reshape(tokens.batch, count, number, -1)
        size, stretch, place = drawn[..., :1], drawn[..., 1 : 1 + axes], drawn[..., 1 + axes :]
        side = (s.smallest + (s.largest - s.smallest) * size) ** (1 / axes)
        stretch = (stretch - stretch.mean(-1, keepdim=True)) * -math.log(s.aspect)
        half = ((high - low + 1) * side * stretch.exp() / 2).clamp(min=0.5)
        return low - half + place * (high - low + 2 * half), half


def _range(coords: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """The lowest and highest coordinates (R, A) of real tokens."""
    if valid is None:
        return coords.amin(1), coords.amax(1)
    absent = ~valid[..., None]
    low, high = coords.masked_fill(absent, torch.inf).amin(1), coords.masked_fill(absent, -torch.inf).amax(1)
    nothing = low > high  # a sample of padding alone has no range
    return low.masked_fill(nothing, 0), high.masked_fill(nothing, 0)
