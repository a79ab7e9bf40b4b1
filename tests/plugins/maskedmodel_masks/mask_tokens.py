"""Tokens for the tests of masks: whole grids of any extents, with or without channels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskedmodel import Mask, MaskScheduler, Noise, Tokens

NAMES = {1: ("time",), 2: ("height", "width"), 3: ("time", "height", "width")}


def grid(
    batch: int, *extents: int, channels: int = 0, axes: Sequence[str] = (), values: Tensor | None = None
) -> Tokens:
    """A batch of tokens that fill a grid in raster order, channel by channel."""
    coords = torch.cartesian_prod(*(torch.arange(n) for n in extents)).reshape(-1, len(extents))
    cells = len(coords)
    channel = torch.arange(channels).repeat_interleave(cells) if channels else None
    coords = coords.repeat(max(channels, 1), 1)
    if values is None:
        values = torch.zeros(batch, len(coords), 1)
    return Tokens(values, coords, tuple(axes) or NAMES[len(extents)], extents, channel)


def masks(scheduler: MaskScheduler, tokens: Tokens, progress: float = 0.0, seed: int = 0) -> Mask:  # type: ignore[type-arg]
    """The mask of samples 0, 1, ..., held to the invariants."""
    return scheduler.sample(tokens, progress, Noise.of(range(tokens.batch), seed=seed)).check()
