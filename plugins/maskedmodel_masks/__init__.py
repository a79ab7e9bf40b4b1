"""Mask schedulers: how many tokens are hidden, and which."""

from __future__ import annotations

from typing import Any

from maskedmodel import MaskScheduler, hookimpl
from maskedmodel_masks.adaptive import Adaptive
from maskedmodel_masks.attention import Attention
from maskedmodel_masks.blocks import Blocks
from maskedmodel_masks.channel_patches import ChannelPatches
from maskedmodel_masks.combined import Choose, Sum
from maskedmodel_masks.filtered_noise import FilteredNoise
from maskedmodel_masks.gated import Curriculum, Gated
from maskedmodel_masks.grid import Grid
from maskedmodel_masks.hard_patches import HardPatches
from maskedmodel_masks.invert import Invert
from maskedmodel_masks.sampled import Sampled
from maskedmodel_masks.spans import Spans
from maskedmodel_masks.structured import Aligned, Channels, Strips, Tube
from maskedmodel_masks.uniform import Ramped, Uniform


@hookimpl
def maskedmodel_mask_schedulers() -> list[type[MaskScheduler[Any]]]:
    patterns: list[type[MaskScheduler[Any]]] = [Blocks, Spans, Grid, FilteredNoise, Tube, Strips, Channels, Aligned]
    learned: list[type[MaskScheduler[Any]]] = [HardPatches, Sampled, Gated, Curriculum, Attention]
    combined: list[type[MaskScheduler[Any]]] = [Sum, Choose, Invert]
    return [Uniform, Ramped, *patterns, ChannelPatches, Adaptive, *learned, *combined]
