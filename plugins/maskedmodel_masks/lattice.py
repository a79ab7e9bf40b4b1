"""Masks over the cells of a grid: a regular lattice, and filtered noise. The count is exact, tokens are ranked."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import FeatureEncoder, Noise, Tokenizer, Tokens
from maskedmodel_masks.places import Cells, axis_number, grid_cells, places
from maskedmodel_masks.ratio import RatioSettings, Scheduled

SHARED = "Whether the same pattern is hidden in every channel, as far as the count allows."


class GridSettings(RatioSettings):
    """A regular lattice (MAE's grid masking, He et al. 2021; uniform sampling of UM-MAE, Li et al. 2022)."""

    name: Literal["grid"] = "grid"
    period: int = Field(2, ge=2, description="Extent along each axis of the cell that repeats, in tokens.")
    axes: tuple[str, ...] | None = Field(
        None, min_length=1, description="Names of the axes along which the lattice repeats; null = all of them."
    )
    shared: bool = Field(False, description=SHARED)


class Grid(Scheduled[GridSettings]):
    """Keeps the same places of every cell of `period` tokens a side: which ones is drawn for each sample.

    Where the ratio makes whole numbers of places in a cell (0.75 of 2 x 2) and the period divides the extents, the
    lattice is perfect. Else the ratio is met exactly, and the lattice lacks some tokens, at random.
    """

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        """The places of a cell in a random order, then noise."""
        used = self._axes(tokens.axes)
        cells, _ = grid_cells(tokens)
        period = self.settings.period
        place = torch.zeros_like(cells[..., 0])
        for axis in used:
            place = place * period + cells[..., axis] % period
        count = period ** len(used)
        if tokens.channel is not None and not self.settings.shared:
            channel = places(tokens, [], channels=True)
            place, number = channel.index * count + place, channel.count
        else:
            number = 1
        order = noise.uniform(number * count, "mask/places").reshape(-1, number, count).argsort(-1).argsort(-1)
        rank = Cells(place, (number * count,), False).spread(order.flatten(1))
        return rank + 0.5 * noise.uniform(tokens.length)

    def _axes(self, axes: tuple[str, ...]) -> list[int]:
        return [axis_number(axes, axis, "mask.axes") for axis in self.settings.axes or axes]

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where an axis isn't there, or the ratio hides none or all of the tokens."""
        self._axes(tuple(tokenizer.axes))
        super().attach(tokenizer, encoder)


class NoiseSettings(RatioSettings):
    """Filtered noise (ColorMAE, Hinojosa et al. 2024)."""

    name: Literal["noise"] = "noise"
    colour: Literal["green", "red", "blue", "purple"] = Field(
        "green",
        description="What is left of white noise. red: the coarse part. blue: the fine part. green: the band between. "
        "purple: all but that band.",
    )
    fine: float = Field(0.5, gt=0, description="Width of the blur that takes the fine part away, in tokens.")
    coarse: float = Field(2.0, gt=0, description="Width of the blur that leaves the coarse part, in tokens.")
    shared: bool = Field(False, description=SHARED)

    @model_validator(mode="after")
    def _ordered(self) -> NoiseSettings:
        if self.fine >= self.coarse:
            raise ValueError(f"fine must be below coarse, got {self.fine:g} and {self.coarse:g}")
        return self


class FilteredNoise(Scheduled[NoiseSettings]):
    """Hides where filtered noise is highest: patches of a size that the filter sets, at random places."""

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        axes = range(len(tokens.axes))
        where = places(tokens, axes, channels=not self.settings.shared)
        extents = where.sizes[-len(tokens.axes) :]
        white = noise.uniform(where.count, "mask/field").reshape(tokens.batch, -1, *extents)
        field = self._filtered(white - 0.5, extents).flatten(2)
        field = field / field.square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
        # A filter may leave nothing of a tiny grid; then the noise of tokens decides.
        return where.spread(field.flatten(1)) + 1e-3 * noise.uniform(tokens.length)

    def _filtered(self, white: Tensor, extents: tuple[int, ...]) -> Tensor:
        """(B, C, *extents) filtered by a difference of Gaussian blurs, whose mean is zero."""
        dims = list(range(2, 2 + len(extents)))
        frequency = torch.zeros(1, device=white.device)
        for number, extent in enumerate(extents):
            make = torch.fft.rfftfreq if number == len(extents) - 1 else torch.fft.fftfreq
            shape = [-1 if axis == number else 1 for axis in range(len(extents))]
            frequency = frequency + make(extent, device=white.device).reshape(shape).square()
        fine, coarse = (
            (-2 * (math.pi * width) ** 2 * frequency).exp() for width in (self.settings.fine, self.settings.coarse)
        )
        gain = {"red": coarse, "blue": 1 - fine, "green": fine - coarse, "purple": 1 - (fine - coarse)}
        kept = torch.where(frequency > 0, gain[self.settings.colour], 0)
        filtered: Tensor = torch.fft.irfftn(torch.fft.rfftn(white, dim=dims) * kept, s=extents, dim=dims)
        return filtered
