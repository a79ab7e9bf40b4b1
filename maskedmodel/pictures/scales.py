"""What pictures share: a colour ramp, the grey of what isn't there, and what their sides mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ABSENT = 0.62  # the grey of what isn't there or is hidden: neither black nor white


@dataclass(frozen=True)
class Scale:
    """What one side of a picture means: a title with its unit, and ticks (place from left or top in [0, 1], text)."""

    title: str = ""
    ticks: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Scales:
    """The two sides of a picture; None where there is nothing to say."""

    horizontal: Scale | None = None
    vertical: Scale | None = None


def heat(level: Tensor) -> Tensor:
    """(B, H, W) in [0, 1] to (B, 3, H, W): a ramp from black through red and yellow to white; NaN is grey."""
    ramp = torch.stack([(3 * level - shift).clamp(0, 1) for shift in range(3)], 1)
    return torch.where(level.isnan()[:, None], ABSENT, ramp)
