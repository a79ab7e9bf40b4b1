"""A series drawn as a picture and read back, as VisionTS does (Chen et al. 2024, arXiv 2408.17253).

The history is folded by its period: a row of the picture is a phase, a column a period. It is resized to fill the first
columns of patches; the rest of the picture is the future, which an image model fills in. Resizing is bilinear between
pixel centres, without antialiasing: F.interpolate with align_corners=False.

Shapes: B series, C steps of history, P steps of a period, N periods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.errors import DataError
from maskedmodel_timeseries.statistics import mean_and_std

Interpolation = Literal["bilinear", "nearest", "bicubic"]
_LEAST_WEIGHT = 0.5  # of a pixel that must come from observed values for it to be there


@dataclass(frozen=True)
class Layout:
    """Where history and horizon lie in a picture of `size` (height, width) pixels cut into `patch` (height, width).

    columns  patches across that hold the history; those after it are the future.
    """

    context: int  # steps
    horizon: int  # steps
    period: int  # steps
    size: tuple[int, int]
    patch: tuple[int, int]
    columns: int

    @property
    def left(self) -> int:
        """Steps that the first value is repeated for, so that the history fills whole periods and ends with one."""
        return -self.context % self.period

    @property
    def periods(self) -> int:
        """Periods of the history, N."""
        return (self.context + self.left) // self.period

    @property
    def width(self) -> int:
        """Pixels across that hold the history."""
        return self.columns * self.patch[1]

    @property
    def across(self) -> int:
        """Periods that the whole picture is read back as."""
        return round(self.size[1] * (self.periods / self.width))


def lay_out(
    context: int, horizon: int, period: int, size: tuple[int, int], patch: tuple[int, int], align: float
) -> Layout:
    """The layout of a forecast: the history takes its share of the columns of patches, times `align`, rounded down.

    Below 1, `align` leaves more room for the future than the horizon needs. Raises DataError where the future doesn't
    reach as far as the horizon, since one column of patches must hold the history.
    """
    left, right = -context % period, -horizon % period
    share = (left + context) / (left + context + right + horizon)
    columns = max(int(share * (size[1] // patch[1]) * align), 1)
    layout = Layout(context, horizon, period, size, patch, columns)
    reach = (layout.across - layout.periods) * period
    if reach < horizon:
        raise DataError(
            "The history is too short for this horizon: the picture's future doesn't reach so far.",
            expected=f"a horizon of at most {reach} steps after {context} steps of history, period {period}",
            got=f"{horizon} steps",
            fix="Give more context, a shorter horizon, or another period.",
        )
    return layout


def standardised(history: Tensor, constant: float, floor: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C) less its mean, with a standard deviation of `constant`; and the mean and scale (B, 1) to put it back.

    A spread below `floor`, in the units of the history, counts as that.
    """
    mean, std = mean_and_std(history)
    scale = std.clamp(min=floor) / constant
    return (history - mean) / scale, mean, scale


def folded(series: Tensor, period: int) -> Tensor:
    """(B, C) to (B, P, N): phases down, periods across, the first value repeated on the left to fill a period."""
    left = -series.shape[1] % period
    return rearrange(F.pad(series, (left, 0), mode="replicate"), "b (n p) -> b p n", p=period)


def unfolded(phases: Tensor) -> Tensor:
    """(B, P, N) to (B, N * P)."""
    return rearrange(phases, "b p n -> b (n p)")


def draw(series: Tensor, layout: Layout, interpolation: Interpolation) -> Tensor:
    """(B, C) to pictures (B, height, width), the future zero. A pixel is NaN where little of it was observed."""
    past = resized(folded(series, layout.period), (layout.size[0], layout.width), interpolation)
    return F.pad(past, (0, layout.size[1] - layout.width))


def read(picture: Tensor, layout: Layout, interpolation: Interpolation) -> Tensor:
    """The horizon (B, H) of pictures (B, height, width)."""
    phases = resized(picture, (layout.period, layout.across), interpolation)
    start = layout.left + layout.context
    return unfolded(phases)[:, start : start + layout.horizon]


def resized(picture: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    """(B, height, width) to (B, *size). Where NaN enters, the rest is weighted up, or the pixel is NaN."""
    missing = picture.isnan()
    if not missing.any():
        return _interpolated(picture, size, interpolation)
    weight = _interpolated((~missing).to(picture.dtype), size, interpolation)
    values = _interpolated(picture.masked_fill(missing, 0), size, interpolation)
    return torch.where(weight >= _LEAST_WEIGHT, values / weight.clamp(min=_LEAST_WEIGHT), torch.nan)


def _interpolated(picture: Tensor, size: tuple[int, int], interpolation: Interpolation) -> Tensor:
    corners = None if interpolation == "nearest" else False
    return F.interpolate(picture[:, None], size, mode=interpolation, align_corners=corners)[:, 0]
