"""Uniformly random masks, and what every scheduler here shares: a ratio that is a number or a schedule."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeVar

from pydantic import Field

from maskedmodel import MaskScheduler, Settings, Tokenizer
from maskedmodel.schedulers import FeatureEncoder
from maskedmodel_masks.schedules import Constant, Ramp, Ratio, all_ratios, ratio_at, refuse_extremes


class RatioSettings(Settings):
    """Settings of a scheduler that hides a share of the tokens."""

    ratio: Ratio = Field(
        0.75,
        validate_default=True,
        description="Share of a sample's tokens to hide, between 0 and 1, or a schedule: a section with shape: linear, "
        "cosine (start, end, levels), random (low, high, levels, seed) or steps (table).",
    )


R = TypeVar("R", bound=RatioSettings)


class Scheduled(MaskScheduler[R]):
    """A scheduler whose ratio is a setting, and may move over the run."""

    def ratio(self, progress: float) -> float:
        return ratio_at(self.settings.ratio, progress)

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the ratio hides none or all of the tokens that the tokenizer usually gives."""
        count = usual_count(tokenizer)
        if count is not None:
            refuse_extremes(all_ratios(self.settings.ratio), count, "mask.ratio", "tokens")


def usual_count(tokenizer: Tokenizer[Any]) -> int | None:
    """L of a usual sample with all its channels, where the tokenizer knows it."""
    if tokenizer.extents is None:
        return None
    return math.prod(tokenizer.extents) * max(tokenizer.channel_count, 1)


class UniformSettings(RatioSettings):
    """Every set of tokens is as likely (He et al. 2021)."""

    name: Literal["uniform"] = "uniform"


class Uniform(Scheduled[UniformSettings]):
    """Random masking."""


class RampedSettings(Settings):
    """Every set of tokens is as likely, at a ratio that moves over the run."""

    name: Literal["ramped"] = "ramped"
    start: Constant = Field(0.60, description="Share of tokens to hide at the first step, between 0 and 1.")
    end: Constant = Field(0.85, description="Share of tokens to hide at the last step, between 0 and 1.")
    shape: Literal["linear", "cosine"] = Field(
        "linear", description="linear: at an even pace. cosine: slow at both ends, fastest half-way."
    )
    levels: int = Field(
        16,
        ge=2,
        description="Number of distinct ratios on the way. Few, so that a compiled model meets few token counts.",
    )


class Ramped(MaskScheduler[RampedSettings]):
    """Random masking at a ratio that ramps: `uniform` with a ramp as its ratio, under a name of its own."""

    @property
    def _ramp(self) -> Ramp:
        s = self.settings
        return Ramp(shape=s.shape, start=s.start, end=s.end, levels=s.levels)

    def ratio(self, progress: float) -> float:
        return self._ramp.at(progress)

    def attach(self, tokenizer: Tokenizer[Any], encoder: FeatureEncoder) -> None:
        """Raises ConfigError where the ramp goes beyond what the number of tokens allows."""
        count = usual_count(tokenizer)
        if count is not None:
            refuse_extremes(self._ramp.all(), count, "mask.start and mask.end", "tokens")
