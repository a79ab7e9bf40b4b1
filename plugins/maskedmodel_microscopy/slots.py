"""Channels in the slots of a data set, and the tiles of a field."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from maskedmodel_microscopy.tiff_image import Array


def into_slots(pixels: Array, own: dict[str, int], slot_names: tuple[str, ...] | None) -> Tensor:
    """(V, H, W) float32 with each channel in the slot of its name, unknown names after them; NaN where there is none.

    own  name and place in `pixels` of each channel. Without `slot_names` the slots are just these channels.
    """
    if slot_names is None:
        return torch.from_numpy(pixels[list(own.values())])  # a copy, as the list picks
    slot = {name: number for number, name in enumerate(slots_of(own, slot_names))}
    field = torch.full((len(slot), *pixels.shape[1:]), torch.nan)
    for name, place in own.items():
        field[slot[name]] = torch.from_numpy(np.ascontiguousarray(pixels[place]))
    return field


def slots_of(own: Iterable[str], slot_names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names of a field's slots: those of the data set, then channels that only it has."""
    return tuple(dict.fromkeys([*(slot_names or ()), *own]))


def tiles(height: int, width: int, tile: int) -> list[tuple[int, int]]:
    """Top and left of each tile: as many as fit side by side, what is left over shared out to both edges."""
    starts = []
    for extent in (height, width):
        count = max(extent // tile, 1)
        margin = max(extent - count * tile, 0) // 2
        starts.append([margin + place * tile for place in range(count)])
    return [(top, left) for top in starts[0] for left in starts[1]]
