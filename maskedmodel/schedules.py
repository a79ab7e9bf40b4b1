"""Weights over time: a number, or a slope from one number to another over the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, WithJsonSchema

__all__ = ["Slope", "Weight", "eased", "weight_at"]

Shape = Literal["linear", "cosine"]


def eased(progress: float, shape: Shape) -> float:
    """How far a change over the run has come at `progress`, from 0 to 1.

    linear: at an even pace. cosine: slow at both ends, fastest half-way.
    """
    done = min(max(progress, 0.0), 1.0)
    return 0.5 - 0.5 * math.cos(math.pi * done) if shape == "cosine" else done


def _weight(value: float) -> float:
    if not (0 <= value < math.inf):
        raise ValueError(f"expected a finite number of at least 0, got {value:g}")
    return value


# Not Field(ge=0): in a union the bounds are out of reach of whoever words the error.
Constant = Annotated[float, AfterValidator(_weight), WithJsonSchema({"type": "number", "minimum": 0})]


class Slope(BaseModel):
    """A weight that goes from `start` to `end`, up or down, over the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: Shape = Field("linear", description="linear: at an even pace. cosine: slow at both ends, fastest half-way.")
    start: Constant = Field(1.0, description="The weight at the first step, 0 or more.")
    end: Constant = Field(1.0, description="The weight at the last step, 0 or more.")


def _branch(value: object) -> str:
    return "slope" if isinstance(value, Mapping | Slope) else "constant"


Weight = Annotated[Annotated[Constant, Tag("constant")] | Annotated[Slope, Tag("slope")], Discriminator(_branch)]


def weight_at(weight: Any, progress: float) -> float:
    """What a Weight says at `progress`, 0 at the first step and 1 at the last."""
    if isinstance(weight, Slope):
        return weight.start + (weight.end - weight.start) * eased(progress, weight.shape)
    return float(weight)
