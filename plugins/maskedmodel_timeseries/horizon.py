"""The `horizon` masks: the end of an axis hidden, as a forecast needs it, and the rest of the ratio at random."""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import MaskScheduler, Noise, Settings, Tokens
from maskedmodel.errors import ConfigError


class HorizonSettings(Settings):
    """The last cells along an axis, as many as each sample draws, and random ones before them up to the ratio."""

    name: Literal["horizon"] = "horizon"
    ratio: float = Field(0.6, gt=0, lt=1, description="Share of a sample's tokens to hide, between 0 and 1.")
    lowest: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Lowest ratio: each step's is drawn between this and `ratio`, so that long histories are learnt "
        "too. null: always `ratio`.",
    )
    levels: int = Field(8, ge=2, description="Number of distinct ratios between the lowest and the highest.")
    shortest: float = Field(
        0.0, ge=0, lt=1, description="Shortest hidden end, as a share of the axis. 0: some masks are random alone."
    )
    longest: float | None = Field(
        None, gt=0, lt=1, description="Longest hidden end, as a share of the axis, up to the ratio. null: the ratio."
    )
    axis: str | None = Field(
        None, description="Axis whose end is hidden. null: time where there is one, else the last."
    )

    @model_validator(mode="after")
    def _in_order(self) -> HorizonSettings:
        if not self.shortest <= self.end <= self.ratio:
            raise ValueError(
                f"expected shortest <= longest <= ratio, got {self.shortest:g}, {self.end:g} and {self.ratio:g}"
            )
        if self.lowest is not None and self.lowest > self.ratio:
            raise ValueError(f"expected lowest <= ratio, got {self.lowest:g} and {self.ratio:g}")
        return self

    @property
    def end(self) -> float:
        """The longest hidden end, as a share of the axis."""
        return self.ratio if self.longest is None else self.longest


class Horizon(MaskScheduler[HorizonSettings]):
    """Masks that teach a model to forecast horizons of many lengths.

    The length of the hidden end is uniform between `shortest` and `longest`, drawn per sample. What the ratio hides
    beyond it is spread at random over what comes before, so every mask of a step hides as many tokens.
    """

    def ratio(self, progress: float) -> float:
        """`ratio`, or one of the levels down to `lowest`, as a hash of the progress picks it: no order in time."""
        s = self.settings
        if s.lowest is None:
            return s.ratio
        digest = hashlib.blake2b(f"{progress:.9f}".encode(), digest_size=8).digest()
        level = int.from_bytes(digest, "little") % s.levels
        return s.lowest + (s.ratio - s.lowest) * level / (s.levels - 1)

    def scores(self, tokens: Tokens, progress: float, noise: Noise) -> Tensor:
        place = self._places(tokens)
        far = torch.finfo(place.dtype).max
        first, last = place, place
        if tokens.valid is not None:
            first, last = place.masked_fill(~tokens.valid, far), place.masked_fill(~tokens.valid, -far)
        start, stop = first.amin(1, keepdim=True), last.amax(1, keepdim=True)
        high = min(self.settings.end, self.ratio(progress))
        low = min(self.settings.shortest, high)
        share = low + (high - low) * noise.uniform(1, "horizon")
        # Cells are counted whole: of 16 at a share of 0.3, the last 5.
        hidden_from = stop - (share * (stop - start + 1)).round()
        return noise.uniform(tokens.length) + (place > hidden_from).float()

    def _places(self, tokens: Tokens) -> Tensor:
        """(B, L) float32 coordinates along the axis."""
        axes, wanted = tokens.axes, self.settings.axis
        name = wanted or ("time" if "time" in axes else axes[-1])
        if name not in axes:
            raise ConfigError(
                "Masks of 'horizon' can't find their axis among those of the tokens.",
                where="mask.axis",
                expected=", ".join(axes),
                got=name,
            )
        coords = tokens.coords[..., axes.index(name)].float()
        return coords if coords.dim() == 2 else coords.expand(tokens.batch, -1)
