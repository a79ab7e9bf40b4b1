"""The ratio over time: a number, or a schedule. Every scheduler here takes either, so any pattern goes with any."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

from maskedmodel import Noise
from maskedmodel.errors import ConfigError
from maskedmodel.schedules import eased


def _inside(ratio: float) -> float:
    if not 0 < ratio < 1:
        raise ValueError(f"expected a number greater than 0 and less than 1, got {ratio:g}")
    return ratio


# Not Field(gt=0, lt=1): in a union the bounds are out of reach of whoever words the error.
Constant = Annotated[
    float, AfterValidator(_inside), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1})
]
LEVELS = "Number of distinct ratios. Few, so that a compiled model meets few token counts."


class Schedule(BaseModel):
    """A ratio that follows from the share of the run that is done, and from nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def at(self, progress: float) -> float:
        """The ratio at `progress` (0 at the first step, 1 at the last)."""
        raise NotImplementedError

    def all(self) -> list[float]:
        """Every ratio that `at` may give."""
        raise NotImplementedError


class Ramp(Schedule):
    """From `start` to `end`, up or down, over the run."""

    shape: Literal["linear", "cosine"] = Field(
        "linear", description="linear: at an even pace. cosine: slow at both ends, fastest half-way."
    )
    start: Constant = Field(0.60, description="Share of tokens to hide at the first step, between 0 and 1.")
    end: Constant = Field(0.85, description="Share of tokens to hide at the last step, between 0 and 1.")
    levels: int = Field(16, ge=2, description=LEVELS)

    def at(self, progress: float) -> float:
        return self._level(round(eased(progress, self.shape) * (self.levels - 1)))

    def _level(self, index: int) -> float:
        return self.start + (self.end - self.start) * (index / (self.levels - 1))

    def all(self) -> list[float]:
        return [self._level(index) for index in range(self.levels)]


class Drawn(Schedule):
    """Drawn anew at every step from a range, each level as likely (R2MAE, arXiv 2509.21650).

    The draw is a hash of the step's progress: the same on every rank, for all micro-batches and after a resume.
    """

    shape: Literal["random"] = Field("random", description="random: drawn anew at every step.")
    low: Constant = Field(0.50, description="Smallest share of tokens to hide, between 0 and 1.")
    high: Constant = Field(0.90, description="Largest share of tokens to hide, between 0 and 1.")
    levels: int = Field(16, ge=2, description=LEVELS)
    seed: int = Field(0, description="Another number gives another sequence of draws.")

    @model_validator(mode="after")
    def _ordered(self) -> Drawn:
        if self.low > self.high:
            raise ValueError(f"low must not be above high, got low {self.low:g} and high {self.high:g}")
        return self

    def at(self, progress: float) -> float:
        draw = float(Noise.of([float(progress).hex()], seed=self.seed).uniform(1, "ratio"))
        return self._level(int(draw * self.levels))

    def _level(self, index: int) -> float:
        return self.low + (self.high - self.low) * (index / (self.levels - 1))

    def all(self) -> list[float]:
        return [self._level(index) for index in range(self.levels)]


class Steps(Schedule):
    """A table: each ratio holds from its share of the run on."""

    shape: Literal["steps"] = Field("steps", description="steps: a table of ratios.")
    table: tuple[tuple[float, Constant], ...] = Field(
        ((0.0, 0.60), (0.5, 0.75)),
        min_length=1,
        description="Pairs: the share of the run from which a ratio holds, 0 first and rising; the share to hide.",
    )

    @model_validator(mode="after")
    def _rising(self) -> Steps:
        places = [place for place, _ in self.table]
        rising = all(one < other for one, other in pairwise(places))
        if places[0] != 0 or not rising or places[-1] > 1:
            raise ValueError(f"the shares of the run must rise from 0 to at most 1, got {places}")
        return self

    def at(self, progress: float) -> float:
        return [ratio for place, ratio in self.table if place <= max(progress, 0.0)][-1]

    def all(self) -> list[float]:
        return [ratio for _, ratio in self.table]


def _kind(value: object) -> str | None:
    """Which branch of `Ratio` a value belongs to; None, which pydantic refuses, where it has an unknown shape."""
    shape = value.get("shape") if isinstance(value, Mapping) else getattr(value, "shape", "constant")
    return {"linear": "ramp", "cosine": "ramp"}.get(shape, shape) if isinstance(shape, str) else None


Ratio = Annotated[
    Annotated[Constant, Tag("constant")]
    | Annotated[Ramp, Tag("ramp")]
    | Annotated[Drawn, Tag("random")]
    | Annotated[Steps, Tag("steps")],
    Discriminator(
        _kind,
        custom_error_type="ratio",
        custom_error_message="expected a number between 0 and 1, or a section with shape: linear, cosine, random or "
        "steps",
    ),
]


def ratio_at(ratio: Any, progress: float) -> float:
    """What a Ratio says at `progress`."""
    return float(ratio.at(progress)) if isinstance(ratio, Schedule) else float(ratio)


def all_ratios(ratio: Any) -> list[float]:
    """Every number that a Ratio may say."""
    return ratio.all() if isinstance(ratio, Schedule) else [float(ratio)]


def opposite(ratio: Any) -> Any:
    """The Ratio of what another one leaves, at every point of the run. There is none of one that is drawn."""
    if isinstance(ratio, Ramp):
        return ratio.model_copy(update={"start": 1 - ratio.start, "end": 1 - ratio.end})
    if isinstance(ratio, Steps):
        return ratio.model_copy(update={"table": tuple((place, 1 - share) for place, share in ratio.table)})
    return 1 - float(ratio)


def refuse_extremes(ratios: Iterable[float], count: int, where: str, noun: str) -> None:
    """Raises ConfigError where one of the ratios, rounded, hides none or all of `count` things."""
    for ratio in ratios:
        hidden = round(ratio * count)
        if not 0 < hidden < count:
            allowed = f"above {0.5 / count:.3g} and below {1 - 0.5 / count:.3g}, or more {noun}"
            raise ConfigError(
                f"A ratio of {ratio:.4g} hides {'all' if hidden else 'none'} of the {count} {noun}.",
                where=where,
                expected=allowed if count > 1 else f"2 {noun} or more",
                got=f"{ratio:.4g} of {count}, which rounds to {hidden}",
            )
