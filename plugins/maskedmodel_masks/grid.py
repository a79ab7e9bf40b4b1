"""A regular grid of visible tokens. The count is exact, tokens are ranked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from maskedmodel import Noise, Tokenizer, Tokens
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel_masks.cells import SHARED, Cells, axis_number, cells_along, grid_cells
from maskedmodel_masks.uniform import RatioSettings, Scheduled


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
            channel = cells_along(tokens, [], channels=True)
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
