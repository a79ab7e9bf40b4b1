"""The `image` tokenizer: pictures (B, C, H, W) cut into patches."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import DataError, GridTokenizer, Noise, Settings, ShapeError, Tokens
from maskedmodel_image.augment import Interpolation, crop_boxes, resized_crop

# Means and spreads of red, green and blue over the ImageNet training images, as every published MAE uses them.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class MeanStd(BaseModel):
    """Statistics given by hand, one number per channel, on the scale where 8-bit white is 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[_Finite, ...] = Field(min_length=1, description="Mean of each channel, 8-bit white = 1.")
    std: tuple[_Positive, ...] = Field(min_length=1, description="Standard deviation of each channel, above 0.")


class ImageSettings(Settings):
    """Settings of the `image` tokenizer."""

    name: Literal["image"] = "image"
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        224, description="Size the model sees, in pixels: one number, or [height, width]."
    )
    patch: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        16, description="Size of a token, in pixels: one number, or [height, width]. Divides the size."
    )
    channels: PositiveInt = Field(3, description="Number of channels: 1 for grey, 3 for colour, any other as stored.")
    normalise: Literal["half", "imagenet", "measured"] | MeanStd = Field(
        "half",
        description="What tokens are normalised with. half: mean and spread 0.5 in every channel. imagenet: the "
        "published RGB numbers. measured: from the training data, once, stored with the run. Or {mean: [...], "
        "std: [...]} with one number per channel.",
    )
    crop: tuple[float, float] | None = Field(
        (0.2, 1.0), description="Random resized crop in training: range of the share of the area kept. null = none."
    )
    aspect: tuple[float, float] = Field(
        (3 / 4, 4 / 3), description="Range of a random crop's width / height, before it is resized to the size."
    )
    flip: bool = Field(True, description="Whether half of the training images are mirrored left to right.")
    interpolation: Interpolation = Field(
        "bicubic", description="How images are resized; both are antialiased when shrinking."
    )

    @model_validator(mode="after")
    def _consistent(self) -> ImageSettings:
        if self.crop is not None and not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ValueError(f"crop is a range of shares [low, high] with 0 < low <= high <= 1, got {list(self.crop)}")
        if not 0 < self.aspect[0] <= self.aspect[1] < float("inf"):
            raise ValueError(f"aspect is a range [low, high] with 0 < low <= high, got {list(self.aspect)}")
        if self.normalise == "imagenet" and self.channels != 3:
            raise ValueError(f"normalise: imagenet is for 3 channels, got channels: {self.channels}; use measured")
        if isinstance(self.normalise, MeanStd):
            counts = len(self.normalise.mean), len(self.normalise.std)
            if counts != (self.channels, self.channels):
                raise ValueError(
                    f"normalise needs {self.channels} numbers each, one per channel, "
                    f"got {counts[0]} for mean and {counts[1]} for std"
                )
        return self


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class ImageTokenizer(GridTokenizer[ImageSettings]):
    """Patches in raster order; the values of one run over rows, columns, channels, the channel fastest (MAE).

    Takes pictures as floating point, usually in [0, 1], or as uint8, of which 255 becomes 1. Tokens are normalised:
    (picture - mean) / std per channel. `detokenize` gives pictures back on the former scale, up to rounding.

    Buffers `mean` and `std` (C,) float32, and `fitted`, a bool that says whether measured statistics are there. They
    are stored with the run.
    """

    axes = ("height", "width")
    round_trip_tolerance = 1e-6  # a few roundings of float32 at 1, from normalising and back
    mean: Tensor
    std: Tensor
    fitted: Tensor

    def __init__(self, settings: ImageSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        normalise, ones = self.settings.normalise, torch.ones(self.channels)
        if isinstance(normalise, MeanStd):
            mean, std = torch.tensor(normalise.mean), torch.tensor(normalise.std)
        elif normalise == "imagenet":
            mean, std = torch.tensor(_IMAGENET[0]), torch.tensor(_IMAGENET[1])
        else:
            mean, std = 0.5 * ones, 0.5 * ones
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("fitted", torch.tensor(normalise != "measured"))
        self._ready = normalise != "measured"

    @property
    def channels(self) -> int:
        return self.settings.channels

    @property
    def size(self) -> tuple[int, int]:
        return _pair(self.settings.size)

    @property
    def patch(self) -> tuple[int, int]:
        return _pair(self.settings.patch)

    @property
    def needs_statistics(self) -> bool:
        """True under `normalise: measured` until they were measured, or loaded with a run."""
        # The buffer is read only until it says yes: reading it in every step would make a GPU wait.
        if not self._ready:
            self._ready = bool(self.fitted)
        return not self._ready

    def fit_statistics(self, signals: Iterable[Tensor]) -> None:
        """Mean and standard deviation (of the population) per channel, in float64, over prepared batches.

        Batches are merged by the update of Chan, Golub and LeVeque (1979), which doesn't cancel. Does nothing unless
        `normalise` is measured. Raises DataError without data, on values that aren't finite and on a constant channel.
        """
        if self.settings.normalise != "measured":
            return
        count = 0
        mean = torch.zeros(self.channels, dtype=torch.float64, device=self.mean.device)
        squares = torch.zeros_like(mean)  # sums of squared distances from the mean
        for signal in signals:
            picture = self._as_float(signal).to(mean)
            pixels = picture.numel() // self.channels
            own = picture.mean((0, 2, 3))
            away = (picture - own[:, None, None]).square().sum((0, 2, 3))
            shift, total = own - mean, count + pixels
            squares += away + shift.square() * count * pixels / total
            mean += shift * pixels / total
            count = total
        if count == 0:
            raise DataError("There is no data to measure the normalisation statistics on.", expected="1 image or more")
        std = (squares / count).sqrt()
        for channel in range(self.channels):
            if not (torch.isfinite(std[channel]) and std[channel].float() > 0):
                raise DataError(
                    f"Channel {channel} has no usable statistics to normalise with.",
                    expected="finite values that differ",
                    got=f"mean {float(mean[channel]):g}, standard deviation {float(std[channel]):g}",
                    fix="Leave that channel out, or give the numbers: normalise: {mean: [...], std: [...]}.",
                )
        self.mean.copy_(mean)
        self.std.copy_(std)
        self.fitted.fill_(True)
        self._ready = True

    def tokenize(self, signal: Tensor) -> Tokens:
        if self.needs_statistics:
            raise DataError(
                "The normalisation statistics haven't been measured.",
                expected="fit_statistics(...) or the weights of a run before tokenize(...), as normalise is 'measured'",
                fix="Call fit_statistics with prepared batches, load a run, or choose another normalise.",
            )
        picture = self._as_float(signal)
        mean, std = self.mean.to(picture)[:, None, None], self.std.to(picture)[:, None, None]
        return super().tokenize((picture - mean) / std)

    def detokenize(self, values: Tensor, like: Tokens) -> Tensor:
        picture = super().detokenize(values, like)
        return picture * self.std.to(picture)[:, None, None] + self.mean.to(picture)[:, None, None]

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float to (B, C, *size) float: the short side resized, the centre kept.

        8-bit pictures stay within [0, 1], of which bicubic interpolation could otherwise overshoot. Pictures of the
        right size aren't resampled at all.
        """
        picture = self._as_float(signal)
        (height, width), (stored_h, stored_w) = self.size, picture.shape[2:]
        if (stored_h, stored_w) == (height, width):
            return picture
        scale = max(height / stored_h, width / stored_w)
        resized = max(round(stored_h * scale), height), max(round(stored_w * scale), width)
        picture = F.interpolate(picture, resized, mode=self.settings.interpolation, antialias=True)
        top, left = (resized[0] - height) // 2, (resized[1] - width) // 2
        return self._within(picture[:, :, top : top + height, left : left + width], signal)

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """Random resized crop and flip, (B, C, H, W) to (B, C, *size), each sample by its own noise."""
        flipped = noise.uniform(1, purpose="flip")[:, 0] < 0.5 if self.settings.flip else None
        if self.settings.crop is None:
            picture = self.prepare(signal)
            return picture if flipped is None else torch.where(flipped[:, None, None, None], picture.flip(3), picture)
        picture = self._as_float(signal)
        assert noise.batch == picture.shape[0], "one noise key per sample"
        boxes = crop_boxes(noise, picture.shape[2], picture.shape[3], self.settings.crop, self.settings.aspect)
        return self._within(resized_crop(picture, boxes, self.size, self.settings.interpolation, flipped), signal)

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1], as it is: one channel as grey, otherwise the first three as red, green and blue."""
        picture = self._as_float(signal.detach()).float().clamp(0, 1)
        if self.channels == 1:
            return picture.expand(-1, 3, -1, -1)
        return F.pad(picture[:, :3], (0, 0, 0, 0, 0, max(3 - self.channels, 0)))

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Smooth random pictures (B, C, *size) strictly between 0 and 1."""
        return torch.sigmoid(2 * super().example(batch, generator))

    def _as_float(self, signal: Tensor) -> Tensor:
        """(B, C, H, W), floating point kept, uint8 divided by 255. Raises ShapeError on anything else."""
        if signal.dim() != 4 or signal.shape[1] != self.channels:
            raise ShapeError(
                f"Tokenizer 'image' with channels: {self.channels} can't take this signal.",
                expected=f"(batch, {self.channels} channels, height, width)",
                got=tuple(signal.shape),
                fix="Let the tokenizer's channels agree with what the data source gives.",
            )
        if signal.dtype == torch.uint8:
            return signal.float() / 255
        if not signal.is_floating_point():
            raise ShapeError(
                "Pictures are floating point in [0, 1], or uint8.", expected="torch.float32 or uint8", got=signal.dtype
            )
        return signal

    @staticmethod
    def _within(picture: Tensor, stored: Tensor) -> Tensor:
        """Clamp what came from 8 bits. Other pictures may have any range, so there is nothing to clamp them to."""
        return picture.clamp(0, 1) if stored.dtype == torch.uint8 else picture
