"""Uniformly random masks whose ratio is constant, or ramps over the run."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from maskedmodel import MaskScheduler, Settings


class UniformSettings(Settings):
    """Every set of tokens is as likely, at one ratio (He et al. 2021)."""

    name: Literal["uniform"] = "uniform"
    ratio: float = Field(0.75, gt=0, lt=1, description="Share of a sample's tokens to hide, between 0 and 1.")


class Uniform(MaskScheduler[UniformSettings]):
    """Random masking at a constant ratio."""

    def ratio(self, progress: float) -> float:
        return self.settings.ratio


class RampedSettings(Settings):
    """Every set of tokens is as likely, at a ratio that moves over the run."""

    name: Literal["ramped"] = "ramped"
    start: float = Field(0.60, gt=0, lt=1, description="Share of tokens to hide at the first step, between 0 and 1.")
    end: float = Field(0.85, gt=0, lt=1, description="Share of tokens to hide at the last step, between 0 and 1.")
    shape: Literal["linear", "cosine"] = Field(
        "linear", description="linear: at an even pace. cosine: slow at both ends, fastest half-way."
    )
    levels: int = Field(
        16,
        ge=2,
        description="Number of distinct ratios on the way. Few, so that a compiled model meets few token counts.",
    )


class Ramped(MaskScheduler[RampedSettings]):
    """Random masking at a ratio that ramps: a pure function of the share of the run that is done."""

    def ratio(self, progress: float) -> float:
        s = self.settings
        done = min(max(progress, 0.0), 1.0)
        if s.shape == "cosine":
            done = 0.5 - 0.5 * math.cos(math.pi * done)
        done = round(done * (s.levels - 1)) / (s.levels - 1)
        return s.start + (s.end - s.start) * done
