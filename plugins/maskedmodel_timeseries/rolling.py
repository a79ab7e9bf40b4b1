"""Forecasts from every step of a part of a series, scored against what came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.errors import DataError

Forecast = Callable[[Tensor, int], Tensor]  # history (B, V, C) and horizon H to (B, V, H)
_WINDOWS = 32  # at a time


@dataclass(frozen=True)
class Score:
    """Errors of one way to forecast, means over windows, variates and steps."""

    name: str
    mse: float
    mae: float


@dataclass(frozen=True)
class Scores:
    """Scores over the same values: `windows` windows, of whose values `left_out` had no truth or no forecast."""

    scores: tuple[Score, ...]
    windows: int
    left_out: int


def window_count(first: int, last: int, horizon: int, stride: int = 1) -> int:
    """How many windows of `horizon` steps start every `stride` steps from `first` and end by `last`."""
    return max((last - first - horizon) // stride + 1, 0) if last - first >= horizon else 0


def roll(
    ways: Mapping[str, Forecast],
    rows: Tensor,
    *,
    first: int,
    last: int,
    context: int,
    horizon: int,
    stride: int = 1,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Score each way over the windows whose horizons lie in steps `first` to `last` of rows (V, T).

    The history of a window reaches `context` steps back, before `first` too; where the rows begin later, NaN stands
    before them. Values that are missing in the truth or in any forecast are left out of every score. Raises DataError
    where no window fits, or nothing can be scored.
    """
    count = window_count(first, last, horizon, stride)
    if not count:
        raise DataError(
            "No window fits into the test part.",
            expected=f"{horizon} rows or more, the horizon",
            got=f"{last - first} rows",
            fix="Ask for a shorter horizon, or give the test part more rows.",
        )
    short = max(context - first, 0)
    rows = F.pad(rows, (short, 0), value=torch.nan)
    squares = torch.zeros(len(ways), dtype=torch.float64)
    absolutes = torch.zeros(len(ways), dtype=torch.float64)
    scored = total = 0
    for begin in range(0, count, _WINDOWS):
        starts = [first + short + stride * number for number in range(begin, min(begin + _WINDOWS, count))]
        history = torch.stack([rows[:, start - context : start] for start in starts])
        truth = torch.stack([rows[:, start : start + horizon] for start in starts])
        forecasts = torch.stack([way(history, horizon) for way in ways.values()])
        there = ~(truth.isnan() | forecasts.isnan().any(0))
        away = (forecasts - truth).masked_fill(~there, 0).double()
        squares += away.square().sum((1, 2, 3))
        absolutes += away.abs().sum((1, 2, 3))
        scored += int(there.sum())
        total += there.numel()
        if progress is not None:
            progress(begin + len(starts))
    if not scored:
        raise DataError("Nothing can be scored: no value of the test part has both a truth and a history.")
    scores = (
        Score(name, float(square) / scored, float(absolute) / scored)
        for name, square, absolute in zip(ways, squares, absolutes, strict=True)
    )
    return Scores(tuple(scores), count, total - scored)
