"""A window out of a record: which of its signals are the leads, in millivolts, at the rate that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from maskedmodel_signals.montage import LeadSettings
from maskedmodel_signals.recorded import MILLIVOLTS, Header

Array = NDArray[np.float64]

_MARGIN = 32  # samples of the slower rate on either side of a window, more than the filter reaches
_MOST = 1000  # of the two whole numbers whose ratio two rates are taken to be

# Signal number `place` of a record from sample `first` to before `last`, in its own unit, NaN where there is none.
Reader = Callable[[int, int, int], NDArray[Any]]


def cut(
    read: Reader, header: Header, leads: Mapping[int, int], settings: LeadSettings, first: int, length: int
) -> Tensor:
    """(leads, length) float32 in millivolts from sample `first` at the settings' rate; leads that aren't there are NaN.

    It is what resampling the whole record gives there: a piece begins where samples of both rates fall together.
    """
    signal = torch.full((len(settings.names), length), torch.nan)
    for place, slot in leads.items():
        own = header.rates[place]
        ratio = Fraction(settings.rate / own).limit_denominator(_MOST)
        up, down = ratio.numerator, ratio.denominator
        margin = ceil(_MARGIN * max(1, settings.rate / own))
        start = max(floor((first - margin) / up), 0)
        end = min(ceil((first + length + margin) / up) * down, round(header.seconds * own))
        values = np.asarray(read(place, start * down, end), dtype=np.float64)
        values = _resampled(values, up, down) * MILLIVOLTS.get(header.units[place].casefold(), 1.0)
        values = values[first - start * up :][:length]
        signal[slot, : len(values)] = torch.from_numpy(values).float()
    return signal


def _resampled(values: Array, up: int, down: int) -> Array:
    """Values at up / down times their rate by a polyphase filter, gaps staying gaps."""
    if up == down or not len(values):
        return values
    from scipy.signal import resample_poly  # type: ignore[import-untyped]

    gap = np.isnan(values)
    if gap.all():
        return np.full(-(-len(values) * up // down), np.nan)
    there = np.flatnonzero(~gap)
    filled = np.interp(np.arange(len(values)), there, values[there])
    found = np.asarray(resample_poly(filled, up, down, padtype="edge"))
    nearest = np.minimum((np.arange(len(found)) * down + up // 2) // up, len(values) - 1)
    found[gap[nearest]] = np.nan
    return found
