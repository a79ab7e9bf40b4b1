"""Statistics over observed values: NaN says that a value is missing, and takes no part."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from maskedmodel import Tokens

EPSILON = 1e-5  # added to a variance, as VisionTS and reversible instance normalisation (Kim et al. 2022) do


def mean_and_std(history: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (of the population, `EPSILON` in the variance) over the last axis, kept as 1.

    Both are NaN where nothing is observed.
    """
    missing = history.isnan()
    count = (~missing).sum(-1, keepdim=True)
    mean = history.masked_fill(missing, 0).sum(-1, keepdim=True) / count
    away = (history - mean).masked_fill(missing, 0)
    return mean, (away.square().sum(-1, keepdim=True) / count + EPSILON).sqrt()


def mean_spread_features(stored: Tensor) -> Tensor:
    """(B, 2 V): mean and standard deviation of each variate of a batch (B, V, T), zero where nothing is observed."""
    mean, std = mean_and_std(stored.float())
    return torch.cat([mean, std], -1).nan_to_num(0).flatten(1)


def filled(tokens: Tokens) -> Tokens:
    """Tokens whose missing values take the mean of the token's observed ones instead of zero.

    Zero would look like a fall to the mean of the window. No value of another token is used.
    """
    if tokens.observed is None:
        return tokens
    observed = tokens.observed
    mean = (tokens.values * observed).sum(-1, keepdim=True) / observed.sum(-1, keepdim=True).clamp(min=1)
    return replace(tokens, values=torch.where(observed, tokens.values, mean))
