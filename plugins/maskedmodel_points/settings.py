"""Settings of the `points` tokenizer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from maskedmodel import Settings


class PointsSettings(Settings):
    """Settings of the `points` tokenizer. The defaults are Point-MAE's."""

    name: Literal["points"] = "points"
    points: int = Field(1024, gt=1, description="Most points of a cloud that are looked at; of a larger one, so many.")
    groups: int = Field(64, gt=1, description="Number of tokens: neighbourhoods whose centres are spread evenly.")
    group: int = Field(32, gt=0, description="Points of a token: those nearest to its centre.")
    features: int = Field(0, ge=0, description="Numbers that a point has beside x, y, z, such as an intensity.")
    normalise: Literal["sphere", "none"] = Field(
        "sphere", description="sphere: each cloud is moved to its mean and shrunk to a radius of 1. none: as it is."
    )
    cell: float = Field(
        0.25, gt=0, description="Length of the cells that positions are counted in, in units of prepared clouds."
    )
    embed: int = Field(128, gt=0, description="Width of the first layer of a token's embedding; the others have more.")
    scale: tuple[float, float] = Field(
        (2 / 3, 3 / 2), description="Training: range of the factors that each axis is stretched by."
    )
    shift: float = Field(
        0.2, ge=0, description="Training: by how much clouds are moved along each axis, in units of prepared clouds."
    )
    turn: Literal["none", "upright", "any"] = Field(
        "none", description="Training: how clouds are turned. upright: about the third axis. any: in every way."
    )

    @model_validator(mode="after")
    def _consistent(self) -> PointsSettings:
        if not 0 < self.scale[0] <= self.scale[1] < float("inf"):
            raise ValueError(f"scale is a range [low, high] with 0 < low <= high, got {list(self.scale)}")
        if self.turn != "none" and self.features:
            raise ValueError("turn goes with features: 0 only, since nothing says which features are directions")
        return self
