"""The `seasonal` source: series made by rule, labelled by the rule, so nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from maskedmodel import DataSource, Settings
from maskedmodel.sources import SampleDataset, SignalDataset, Split

Array = NDArray[np.float64]

_REMEMBERED = 2**28  # bytes of series: making one takes as long as a small model takes to learn from it


class SeasonalSettings(Settings):
    """Settings of the `seasonal` source."""

    name: Literal["seasonal"] = "seasonal"
    length: int = Field(256, ge=32, description="Length of a series, in time steps.")
    variates: PositiveInt = Field(3, description="Number of variates, which share one rule and its period.")
    train_samples: PositiveInt = Field(4096, description="Number of series to train on.")
    val_samples: PositiveInt = Field(512, description="Number of series to validate with.")
    periods: tuple[int, ...] = Field(
        (12, 16, 24), min_length=1, description="Periods that seasons have, in time steps: one of them each, 4 or more."
    )
    noise: float = Field(0.2, ge=0, description="Standard deviation of the noise, where that of the rest is 1.")
    missing: float = Field(0.0, ge=0, lt=1, description="Share of the steps of each variate that are gaps, as NaN.")
    seed: int = Field(0, ge=0, description="Seed of all series.")

    @field_validator("periods")
    @classmethod
    def _long_enough(cls, periods: tuple[int, ...]) -> tuple[int, ...]:
        if min(periods) < 4:
            raise ValueError(f"a period is 4 steps or more, got {min(periods)}")
        return periods


def _standard(rows: Array) -> Array:
    """Each row less its mean, over its standard deviation."""
    rows = rows - rows.mean(-1, keepdims=True)
    return np.asarray(rows / np.maximum(rows.std(-1, keepdims=True), 1e-9))


def _time(length: int) -> Array:
    return np.linspace(0, 1, length)


def _trend(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A line with one bend."""
    time, bend = _time(length), draw.uniform(0.2, 0.8)
    slopes = draw.uniform(-2, 2, (variates, 2, 1))
    return slopes[:, 0] * time + slopes[:, 1] * np.maximum(time - bend, 0)


def _season(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """Three harmonics of one period, with strengths and phases of each variate's own."""
    period, steps = draw.choice(np.asarray(periods)), np.arange(length)
    order = np.arange(1, 4)[:, None]
    strength = draw.normal(size=(variates, 3, 1)) / order
    phase = draw.uniform(0, 1, (variates, 3, 1))
    return np.asarray(np.sum(strength * np.sin(2 * np.pi * (order * steps / period + phase)), 1))


def _swelling(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A season whose strength swells and fades."""
    swell = np.exp(np.sin(2 * np.pi * (draw.uniform(0.5, 2) * _time(length) + draw.uniform())))
    return _season(draw, variates, length, periods) * swell


def _autoregressive(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A damped, randomly driven oscillation: autoregressive of order 2, by its response to an impulse."""
    damping, turn = draw.uniform(0.85, 0.97), 2 * np.pi / draw.uniform(10, 40)
    lag = np.arange(length)
    response = damping**lag * np.sin((lag + 1) * turn) / np.sin(turn)
    driven = draw.normal(size=(variates, 2 * length))
    return np.stack([np.convolve(row, response)[length : 2 * length] for row in driven])


def _shifts(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A level that jumps now and then, at the same times in all variates."""
    at = np.sort(draw.choice(np.arange(length // 16, length), draw.integers(2, 6), replace=False))
    levels = draw.normal(size=(variates, len(at) + 1))
    return levels[:, np.searchsorted(at, np.arange(length), side="right")]


def _walk(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A random walk."""
    return np.asarray(draw.normal(size=(variates, length)).cumsum(-1))


def _trend_and_season(draw: Generator, variates: int, length: int, periods: Sequence[int]) -> Array:
    """A season on a trend of about its size."""
    trend = _standard(_trend(draw, variates, length, periods))
    return trend + draw.uniform(0.5, 1.5) * _standard(_season(draw, variates, length, periods))


RULES: dict[str, Callable[[Generator, int, int, Sequence[int]], Array]] = {
    "trend": _trend,
    "season": _season,
    "trend and season": _trend_and_season,
    "swelling season": _swelling,
    "autoregressive": _autoregressive,
    "level shifts": _shifts,
    "random walk": _walk,
}


class _Maker:
    """Series `first` and those after it, each a function of its number and the seed."""

    def __init__(self, settings: SeasonalSettings, first: int) -> None:
        self.settings, self.first = settings, first

    def __call__(self, index: int) -> Tensor:
        s, number = self.settings, self.first + index
        draw = default_rng([s.seed, number])
        rows = _standard(list(RULES.values())[number % len(RULES)](draw, s.variates, s.length, s.periods))
        # Its own level and scale per variate, which say nothing about the rule.
        rows = (rows + s.noise * draw.normal(size=rows.shape)) * draw.lognormal(0, 1, (s.variates, 1))
        rows += draw.normal(0, 3, (s.variates, 1))
        if s.missing:
            rows[_gaps(draw, rows.shape, s.missing)] = np.nan
        return torch.from_numpy(rows).float()


def _gaps(draw: Generator, shape: tuple[int, int], share: float) -> NDArray[np.bool_]:
    """One gap per variate that covers a share of its steps, rounded down."""
    length = shape[1]
    size = int(share * length)
    start = draw.integers(0, length - size + 1, (shape[0], 1))
    steps = np.arange(length)
    return (steps >= start) & (steps < start + size)


class Seasonal(DataSource[SeasonalSettings]):
    """Multivariate series of seven kinds: trend, season, both, swelling season, autoregressive, shifts, random walk.

    Samples are (variates, length) float32, labelled by their kind, each kind equally often. Levels and scales are
    random, so that the label isn't in them.
    """

    gives_nan = True

    def open(self, split: Split) -> SampleDataset:
        s = self.settings
        first, count = (0, s.train_samples) if split == "train" else (s.train_samples, s.val_samples)
        numbers = range(first, first + count)
        ids = [f"seasonal-{s.seed}-{number}" for number in numbers]
        return SignalDataset(_Maker(s, first), ids, [number % len(RULES) for number in numbers], remember=_REMEMBERED)

    def class_names(self) -> list[str]:
        return list(RULES)
