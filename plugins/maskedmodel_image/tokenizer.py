"""The `image` tokenizer: pictures (B, C, H, W) cut into patches."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import Noise, NormalisedTokenizer, Settings
from maskedmodel.errors import ShapeError
from maskedmodel.tokenizers import MeanStd, known_statistics, pair
from maskedmodel_image.augment import Interpolation, crop_boxes, moved_points, nearest_crop, resized_crop


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
            self.normalise.check(self.channels)
        return self


class ImageTokenizer(NormalisedTokenizer[ImageSettings]):
    """Patches in raster order; the values of one run over rows, columns, channels, the channel fastest (MAE).

    Takes pictures as floating point, usually in [0, 1], or as uint8, of which 255 becomes 1. Tokens are normalised:
    (picture - mean) / std per channel. `detokenize` gives pictures back on the former scale, up to rounding.
    """

    axes = ("height", "width")
    value_range = (0.0, 1.0)

    def __init__(self, settings: ImageSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.set_statistics(known_statistics(self.settings.normalise, self.channels))

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, C, H, W) uint8 or float to (B, C, *size) float: the short side resized, the centre kept.

        8-bit pictures stay within [0, 1], of which bicubic interpolation could otherwise overshoot. Pictures of the
        right size aren't resampled at all.
        """
        picture = self.as_float(signal)
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
        picture = self.as_float(signal)
        assert noise.batch == picture.shape[0], "one noise key per sample"
        boxes = crop_boxes(noise, picture.shape[2], picture.shape[3], self.settings.crop, self.settings.aspect)
        return self._within(
            resized_crop(picture, boxes, pair(self.settings.size), self.settings.interpolation, flipped), signal
        )

    def move_target(self, target: Tensor, stored: Tensor, noise: Noise | None = None) -> Tensor:
        """Classes of pixels (B, H, W) to (B, *size): of each pixel the class of the stored one at its centre.

        Points (B, K, 3) stay such, in pixels of what the model sees; those of mirrored pictures change places.
        """
        height, width = stored.shape[2:]
        points = target.is_floating_point() and target.dim() == 3 and target.shape[2] == 3
        if not points and tuple(target.shape[1:]) != (height, width):
            raise ShapeError(
                "A target is neither one class for each pixel of its picture nor points.",
                expected=f"{(len(stored), height, width)} or {(len(stored), 'points', 3)}",
                got=tuple(target.shape),
            )
        flipped = None
        if noise is not None and self.settings.flip:
            flipped = noise.uniform(1, purpose="flip")[:, 0] < 0.5
        if noise is not None and self.settings.crop is not None:
            boxes = crop_boxes(noise, height, width, self.settings.crop, self.settings.aspect)
            return _moved(target, boxes, pair(self.settings.size), flipped)
        out_h, out_w = self.size
        scale = max(out_h / height, out_w / width)
        resized = max(round(height * scale), out_h), max(round(width * scale), out_w)
        top, left = (resized[0] - out_h) // 2, (resized[1] - out_w) // 2
        shares = (height / resized[0], width / resized[1])  # stored pixels per pixel
        box = [top * shares[0], left * shares[1], out_h * shares[0], out_w * shares[1]]
        boxes = torch.tensor([box], device=target.device).expand(len(target), -1)
        return _moved(target, boxes, (out_h, out_w), flipped)

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1], as it is: one channel as grey, otherwise the first three as red, green and blue."""
        picture = self.as_float(signal.detach()).float().clamp(0, 1)
        if self.channels == 1:
            return picture.expand(-1, 3, -1, -1)
        return F.pad(picture[:, :3], (0, 0, 0, 0, 0, max(3 - self.channels, 0)))

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Smooth random pictures (B, C, *size) strictly between 0 and 1."""
        return torch.sigmoid(2 * super().example(batch, generator))

    def as_float(self, signal: Tensor) -> Tensor:
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


def _moved(target: Tensor, boxes: Tensor, size: tuple[int, int], flipped: Tensor | None) -> Tensor:
    """Classes of pixels, or points, of stored pictures cut to boxes, resized and mirrored."""
    move = moved_points if target.is_floating_point() else nearest_crop
    return move(target, boxes, size, flipped)
