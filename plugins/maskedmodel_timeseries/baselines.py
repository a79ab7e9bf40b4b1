"""Forecasts without a model, which every model has to beat."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def last_value(history: Tensor, horizon: int) -> Tensor:
    """The last observed value of each variate (B, V, C), repeated: (B, V, H); NaN where nothing was observed."""
    return _last_observed(history)[..., None].expand(*history.shape[:-1], horizon)


def seasonal_naive(history: Tensor, horizon: int, period: int) -> Tensor:
    """The last period of each variate (B, V, C), repeated: (B, V, H).

    Of a phase that is missing there, the last observed period counts; of one never observed, the last value.
    """
    left = -history.shape[-1] % period
    padded = F.pad(history, (left, 0), value=torch.nan)
    phases = padded.reshape(*history.shape[:-1], -1, period).transpose(-1, -2)
    last = _last_observed(phases)
    last = torch.where(last.isnan(), _last_observed(history)[..., None], last)
    return last[..., torch.arange(horizon, device=history.device) % period]


def _last_observed(history: Tensor) -> Tensor:
    """(..., C) to (...): the last value that isn't NaN, or NaN."""
    step = torch.arange(1, history.shape[-1] + 1, device=history.device)
    at = (~history.isnan() * step).amax(-1)
    value = history.gather(-1, (at - 1).clamp(min=0)[..., None])[..., 0]
    return value.masked_fill(at == 0, torch.nan)
