"""Mask schedulers: how many tokens are hidden, and which."""

from __future__ import annotations

from typing import Any

from maskedmodel import MaskScheduler, hookimpl
from maskedmodel_masks.blocks import Blocks
from maskedmodel_masks.lattice import FilteredNoise, Grid
from maskedmodel_masks.ratio import Ramped, Uniform
from maskedmodel_masks.whole import Aligned, Channels, Strips, Tube


@hookimpl
def maskedmodel_mask_schedulers() -> list[type[MaskScheduler[Any]]]:
    return [Uniform, Ramped, Blocks, Grid, FilteredNoise, Tube, Strips, Channels, Aligned]
