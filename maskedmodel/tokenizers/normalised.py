"""A GridTokenizer whose tokens are normalised per channel, by numbers that are given, or measured once per run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from maskedmodel.components import S
from maskedmodel.errors import DataError
from maskedmodel.tokenizers.grid import GridTokenizer
from maskedmodel.tokens import Tokens

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MeanStd(BaseModel):
    """Statistics given by hand, one number per channel, on the scale where 8-bit white is 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[_Finite, ...] = Field(min_length=1, description="Mean of each channel, 8-bit white = 1.")
    std: tuple[_Positive, ...] = Field(min_length=1, description="Standard deviation of each channel, above 0.")

    def check(self, channels: int) -> None:
        """Raises ValueError, for a settings class to pass on, unless there is one number of each per channel."""
        counts = len(self.mean), len(self.std)
        if counts != (channels, channels):
            raise ValueError(
                f"normalise needs {channels} numbers each, one per channel, "
                f"got {counts[0]} for mean and {counts[1]} for std"
            )


# Means and spreads of red, green and blue over the ImageNet training images, as every published MAE uses them.
IMAGENET = MeanStd(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


class NormalisedTokenizer(GridTokenizer[S]):
    """Tokens of (x - mean) / (spreads * std) per channel; `detokenize` gives back x, up to rounding.

    A subclass calls `set_statistics` once, and brings a batch to floating point in `as_float`.

    Buffers `mean` and `std` (C,) float32, and `fitted`, a bool that says whether measured statistics are there. They
    are stored with the run.
    """

    spreads: ClassVar[float] = 1.0  # standard deviations that become 1
    round_trip_tolerance = 1e-6  # a few roundings of float32 at 1, from normalising and back
    mean: Tensor
    std: Tensor
    fitted: Tensor

    def set_statistics(self, given: MeanStd | None) -> None:
        """Register the buffers. None: they have to be measured."""
        count = self.channels
        self.register_buffer("mean", torch.zeros(count) if given is None else torch.tensor(given.mean))
        self.register_buffer("std", torch.ones(count) if given is None else torch.tensor(given.std))
        self.register_buffer("fitted", torch.tensor(given is not None))
        self._measures, self._ready = given is None, given is not None

    def as_float(self, signal: Tensor) -> Tensor:
        """A batch (B, C, ...) as the floating-point values that statistics are about. Default: as it is."""
        return signal

    @property
    def needs_statistics(self) -> bool:
        """True where statistics are to be measured, until they were, or were loaded with a run."""
        # The buffer is read only until it says yes: reading it in every step would make a GPU wait.
        if not self._ready:
            self._ready = bool(self.fitted)
        return not self._ready

    def fit_statistics(self, signals: Iterable[Tensor]) -> None:
        """Mean and standard deviation (of the population) per channel, in float64.

        NaN takes no part where the tokenizer accepts it. Batches are merged by the update of Chan, Golub and LeVeque
        (1979), which doesn't cancel. Does nothing where statistics were given. Raises DataError without data, on
        values that aren't finite and on a constant channel.
        """
        if not self._measures:
            return
        count = torch.zeros(self.channels, dtype=torch.float64, device=self.mean.device)
        mean, squares = torch.zeros_like(count), torch.zeros_like(count)  # squares: of distances from the mean, summed
        for signal in signals:
            values = self.as_float(signal).to(mean).transpose(0, 1).flatten(1)
            absent = values.isnan() if self.accepts_nan else torch.zeros_like(values, dtype=torch.bool)
            own_count = (~absent).sum(1).double()
            own = values.masked_fill(absent, 0).sum(1) / own_count.clamp(min=1)
            away = (values - own[:, None]).masked_fill(absent, 0).square().sum(1)
            shift, total = own - mean, count + own_count
            squares += away + shift.square() * count * own_count / total.clamp(min=1)
            mean += shift * own_count / total.clamp(min=1)
            count = total
        if not count.any():
            raise DataError("There is no data to measure the normalisation statistics on.", expected="1 sample or more")
        std = (squares / count.clamp(min=1)).sqrt()
        for channel, (centre, spread) in enumerate(zip(mean.tolist(), std.tolist(), strict=True)):
            # Rounding leaves a constant channel a spread of some units of the last place.
            if not (torch.isfinite(torch.tensor(spread)) and spread > 1e-7 * abs(centre) and spread > 1e-30):
                raise DataError(
                    f"Channel {channel} has no usable statistics to normalise with.",
                    expected="finite values that differ",
                    got=f"mean {centre:g}, standard deviation {spread:g}",
                    fix="See whether the data is constant there, or give the numbers: {mean: [...], std: [...]}.",
                )
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.fitted.fill_(True)
        self._ready = True

    def tokenize(self, signal: Tensor) -> Tokens:
        if self.needs_statistics:
            raise DataError(
                "The normalisation statistics haven't been measured.",
                expected="fit_statistics(...) or the weights of a run before tokenize(...), as they are 'measured'",
                fix="Call fit_statistics with prepared batches, load a run, or choose given statistics.",
            )
        values = self.as_float(signal)
        return super().tokenize((values - self._spread_out(self.mean, values)) / self._scale(values))

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        signal = super().detokenize(values, like)
        return signal * self._scale(signal) + self._spread_out(self.mean, signal)

    def _scale(self, signal: Tensor) -> Tensor:
        return self.spreads * self._spread_out(self.std, signal)

    @staticmethod
    def _spread_out(numbers: Tensor, signal: Tensor) -> Tensor:
        return numbers.to(signal).reshape(-1, *[1] * (signal.dim() - 2))


def pair(value: int | tuple[int, int]) -> tuple[int, int]:
    """One number stands for height and width."""
    return (value, value) if isinstance(value, int) else value


def known_statistics(normalise: Any, channels: int) -> MeanStd | None:
    """What the settings `half`, `imagenet` and {mean, std} stand for; None for `measured`."""
    if normalise == "measured":
        return None
    if normalise == "imagenet":
        return IMAGENET
    if isinstance(normalise, MeanStd):
        return normalise
    return MeanStd(mean=(0.5,) * channels, std=(0.5,) * channels)
