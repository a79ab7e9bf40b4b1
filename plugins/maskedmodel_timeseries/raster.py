"""The `raster` tokenizer: a series drawn as a picture of its periods, and the picture cut into patches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from maskedmodel import GridTokenizer, Settings, Tokens
from maskedmodel.errors import ShapeError
from maskedmodel.pictures import Scale, Scales, heat
from maskedmodel.tokenizers import pair
from maskedmodel_timeseries.rasterise import Interpolation, folded, resized, standardised
from maskedmodel_timeseries.statistics import filled, mean_spread_features


class RasterSettings(Settings):
    """Settings of the `raster` tokenizer; the defaults are VisionTS's with a model of MAE's pictures."""

    name: Literal["raster"] = "raster"
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        224, description="Size of the picture, in pixels: one number, or [height, width]."
    )
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        16, description="Size of a token, in pixels: one number, or [height, width]. Divides the size."
    )
    channels: Literal[1, 3] = Field(
        3, description="Channels of the picture, all alike: 3 for the weights of a model of colour pictures, else 1."
    )
    period: PositiveInt = Field(24, description="Steps of a period: a column of the picture before it is resized.")
    horizon: int = Field(
        0,
        ge=0,
        description="Steps at the end of a training window that its statistics leave out: the longest horizon that "
        "masks hide.",
    )
    norm_constant: float = Field(
        0.4, gt=0, description="Standard deviation of the series in the picture, in the units of its pixels."
    )
    floor: float = Field(
        0,
        ge=0,
        description="Least standard deviation that a history is divided by, in stored units: what follows one that "
        "stands still isn't blown up. 0.1 where the data source standardises the table; 0: as VisionTS.",
    )
    align_constant: float = Field(
        0.4,
        gt=0,
        le=1,
        description="In a forecast, share of the columns due to the history that it gets. 1: history and horizon fill "
        "the picture, as a training window does. Below: room for more future than is asked for.",
    )
    interpolation: Interpolation = Field("bilinear", description="How the folded series is resized, not antialiased.")


class RasterTokenizer(GridTokenizer[RasterSettings]):
    """Patches of the picture of one variate: phases of the period from top to bottom, periods from left to right.

    A stored signal is a window (B, 1, T). `prepare` makes it a picture (B, channels, *size), and that is the signal
    from there on: tokens are cut from it exactly, and what `detokenize` gives back is the picture. A window is drawn
    over its whole width, so the hidden right-hand columns of a mask are its end.

    Missing values (NaN) are left out of the picture: pixels made of none are missing, patches of such pixels are
    padding.
    """

    axes = ("height", "width")
    accepts_nan = True

    def tokenize(self, signal: Tensor) -> Tokens:
        return filled(super().tokenize(signal))

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, 1, T) to pictures (B, channels, *size), normalised by what is observed before the horizon."""
        if signal.dim() != 3 or signal.shape[1] != 1:
            raise ShapeError(
                "Tokenizer 'raster' draws one variate per picture.",
                expected="(batch, 1 variate, time)",
                got=tuple(signal.shape),
                fix="Let the data source give each variate a sample of its own: data.variates=separate.",
            )
        history = signal.shape[2] - self.settings.horizon
        if history < self.settings.period:
            raise ShapeError(
                "The window is too short for a picture.",
                expected=f"{self.settings.horizon} steps of horizon and a period of {self.settings.period} before it",
                got=f"{signal.shape[2]} steps",
            )
        series = signal[:, 0] if signal.is_floating_point() else signal[:, 0].float()
        _, mean, scale = standardised(series[:, :history], self.settings.norm_constant, self.settings.floor)
        phases = folded((series - mean) / scale, self.settings.period)
        picture = resized(phases, pair(self.settings.size), self.settings.interpolation)
        return self.in_channels(picture)

    def in_channels(self, picture: Tensor) -> Tensor:
        """(B, height, width) as (B, channels, height, width), all channels alike."""
        return picture[:, None].expand(-1, self.channels, -1, -1).contiguous()

    def collate(self, signals: Sequence[Tensor]) -> Tensor:
        """(B, 1, T) of windows (1, t): shorter ones are filled up with NaN on the left, so that all end alike."""
        if len({signal.shape for signal in signals}) == 1:
            return torch.stack(list(signals))
        steps = max(signal.shape[-1] for signal in signals)
        return torch.stack([F.pad(s.float(), (steps - s.shape[-1], 0), value=torch.nan) for s in signals])

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """A heat map of the picture, each sample of `like` on its own scale."""
        level, scale = signal.detach().float().mean(1), (signal if like is None else like).detach().float().mean(1)
        low = scale.nan_to_num(torch.inf).amin((1, 2), keepdim=True)
        high = scale.nan_to_num(-torch.inf).amax((1, 2), keepdim=True)
        return heat(((level - low) / (high - low).clamp(min=1e-12)).clamp(0, 1))

    def scales(self, signal: Tensor) -> Scales:
        period = self.settings.period
        marks = sorted({0, period // 4, period // 2, 3 * period // 4})
        down = tuple(((mark + 0.5) / period, str(mark)) for mark in marks)
        return Scales(Scale("periods, one after another"), Scale(f"step of {period}", down))

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        return {"mean and spread": mean_spread_features(stored)}

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """A season of the period whose strength drifts, a trend and noise: (B, 1, 16 periods and the horizon)."""
        period = self.settings.period
        time = torch.arange(16 * period + self.settings.horizon) / period

        def draw() -> Tensor:
            return torch.rand(batch, 1, 1, generator=generator)

        swell = 1 + 0.5 * (2 * torch.pi * (draw() * time / 8 + draw())).sin()
        season = (2 * torch.pi * (time + draw())).sin() * swell
        trend = (draw() - 0.5) * time / 4
        return season + trend + 0.2 * torch.randn(batch, 1, len(time), generator=generator)
