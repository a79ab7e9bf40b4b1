"""Masks cut from filtered noise. The count is exact, tokens are ranked."""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import Noise, Tokens
from maskedmodel_masks.cells import SHARED, cells_along
from maskedmodel_masks.uniform import RatioSettings, Scheduled


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
        where = cells_along(tokens, axes, channels=not self.settings.shared)
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
