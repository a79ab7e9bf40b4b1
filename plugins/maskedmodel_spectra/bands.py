"""Which wavelengths there are, and what the source of cubes is told."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, field_validator

from maskedmodel import Settings
from maskedmodel.sources import FileSettings

Array = NDArray[np.float32]
Nanometres = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class BandSettings(Settings):
    """What a tokenizer and its data must agree on: which wavelengths there are."""

    wavelengths: tuple[Nanometres, ...] = Field(
        (450, 550, 650, 750, 850),
        min_length=1,
        description="Wavelengths of the bands, in nm, rising. What a cube doesn't reach is absent. Another list is no "
        "other model: a band is known by its wavelength.",
    )

    @field_validator("wavelengths")
    @classmethod
    def _rising(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= before for before, later in pairwise(values)):
            raise ValueError("wavelengths rise, each above the one before")
        return values


class CubesSettings(BandSettings, FileSettings):
    """Settings of the `cubes` source."""

    name: Literal["cubes"] = "cubes"
    window: PositiveInt = Field(32, description="Height and width of a sample, in pixels, side by side in a cube.")
    layout: Literal["HWC", "CHW"] = Field("HWC", description="Order of a cube's axes: C bands, H height, W width.")
    own: tuple[Nanometres, ...] | None = Field(
        None,
        description="Wavelengths of the cubes' own bands, in nm, where no file says them. null: those of the file "
        "NAME.wavelengths.txt beside a cube, or wavelengths.txt in its folder, a number a line; or of a variable of a "
        "MATLAB file, see wavelength_key.",
    )
    key: str | None = Field(None, description="Variable of a MATLAB file that is the cube. null: the one of 3 axes.")
    wavelength_key: str = Field("wavelengths", description="Variable of a MATLAB file that holds wavelengths, in nm.")


def wanted_bands(values: Array, own: NDArray[np.float64], wanted: tuple[float, ...]) -> Array:
    """(bands, H, W) at the wanted wavelengths, on the line between a cube's own next to them; NaN beyond those."""
    found = np.full((len(wanted), *values.shape[1:]), np.nan, dtype=np.float32)
    for row, wavelength in enumerate(wanted):
        if own[0] <= wavelength <= own[-1]:
            high = int(np.searchsorted(own, wavelength))
            low = max(high - 1, 0)
            share = 0.0 if own[high] == own[low] else (wavelength - own[low]) / (own[high] - own[low])
            found[row] = (1 - share) * values[low] + share * values[high] if share < 1 else values[high]
    return found
