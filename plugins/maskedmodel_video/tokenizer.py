"""The `tubes` tokenizer: clips (B, C, T, H, W) cut into tubelets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from maskedmodel import Noise, NormalisedTokenizer, Settings
from maskedmodel.errors import ShapeError
from maskedmodel.pictures import ABSENT, Scale, Scales
from maskedmodel.tokenizers import MeanStd, known_statistics, pair
from maskedmodel_video.augment import centre, moving_frames, multi_scale_crop, take_frames
from maskedmodel_video.media import animation

_SHOWN = 8  # frames in a picture
_COARSE = 8  # pixels: height and width of the plain features

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class TubesSettings(Settings):
    """Settings of the `tubes` tokenizer. Sizes and crops default to those of VideoMAE (Tong et al. 2022)."""

    name: Literal["tubes"] = "tubes"
    frames: PositiveInt = Field(16, description="Frames of a clip that the model sees.")
    stride: PositiveInt = Field(
        1,
        description="Stored frames from one frame of a clip to the next. A source may have left frames out already.",
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] = Field(
        224, description="Size of a frame that the model sees, in pixels: one number, or [height, width]."
    )
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] = Field(
        (2, 16, 16), description="Size of a token: [frames, pixels down, pixels across]. Divides frames and size."
    )
    channels: PositiveInt = Field(3, description="Number of channels: 1 for grey, 3 for colour, any other as stored.")
    normalise: Literal["half", "imagenet", "measured"] | MeanStd = Field(
        "half",
        description="What tokens are normalised with. half: mean and spread 0.5 in every channel. imagenet: the "
        "published RGB numbers, as VideoMAE. measured: from the training data, once, stored with the run. Or "
        "{mean: [...], std: [...]} with one number per channel.",
    )
    crop: tuple[_Positive, ...] | None = Field(
        (1.0, 0.875, 0.75, 0.66),
        min_length=1,
        description="Multi-scale crop in training: extents of the box as shares of the short side, of which height and "
        "width take neighbouring ones. null = none.",
    )
    flip: bool = Field(False, description="Whether half of the training clips are mirrored left to right.")

    @model_validator(mode="after")
    def _consistent(self) -> TubesSettings:
        if self.crop is not None and max(self.crop) > 1:
            raise ValueError(f"crop holds shares of the short side, above 0 and at most 1, got {list(self.crop)}")
        if self.normalise == "imagenet" and self.channels != 3:
            raise ValueError(f"normalise: imagenet is for 3 channels, got channels: {self.channels}; use half")
        if isinstance(self.normalise, MeanStd):
            self.normalise.check(self.channels)
        return self


class TubesTokenizer(NormalisedTokenizer[TubesSettings]):
    """Tubelets in raster order, time slowest; the values of one run over frames, rows, columns, channels, the channel
    fastest (VideoMAE).

    Takes clips (B, C, T, H, W) as floating point, usually in [0, 1], or as uint8, of which 255 becomes 1. A stored clip
    may have more frames than the model sees: in training it sees a stretch that starts at a random one, otherwise the
    middle. A stored clip with fewer frames goes on with its last one. Tokens are normalised: (pixel - mean) / std per
    channel; `detokenize` gives pixels back on the former scale, up to rounding.
    """

    axes = ("time", "height", "width")

    def __init__(self, settings: TubesSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self.set_statistics(known_statistics(self.settings.normalise, self.channels))

    @property
    def size(self) -> tuple[int, int, int]:
        return (self.settings.frames, *self._frame)

    @property
    def _frame(self) -> tuple[int, int]:
        return pair(self.settings.size)

    def prepare(self, signal: Tensor) -> Tensor:
        """(B, C, T, H, W) uint8 or float to (B, C, frames, *size) float: the middle frames, the short side resized, the
        centre kept.

        A clip of the right size isn't resampled at all.
        """
        return centre(self.as_float(self._stretch(signal, None)), self._frame)

    def augment(self, signal: Tensor, noise: Noise) -> Tensor:
        """Random start, multi-scale crop and flip, (B, C, T, H, W) to (B, C, frames, *size), each by its own noise."""
        clip = self.as_float(self._stretch(signal, noise))
        assert noise.batch == clip.shape[0], "one noise key per sample"
        flipped = noise.uniform(1, purpose="flip")[:, 0] < 0.5 if self.settings.flip else None
        if self.settings.crop is not None:
            return multi_scale_crop(clip, noise, self._frame, self.settings.crop, flipped)
        clip = centre(clip, self._frame)
        return clip if flipped is None else torch.where(flipped[:, None, None, None, None], clip.flip(4), clip)

    def _stretch(self, signal: Tensor, noise: Noise | None) -> Tensor:
        """The frames that the model sees: from a random start with noise, else from the middle."""
        self._check(signal)
        frames, stride, stored = self.settings.frames, self.settings.stride, signal.shape[2]
        span = (frames - 1) * stride + 1
        if stored == frames and stride == 1:
            return signal
        room = torch.zeros(signal.shape[0], dtype=torch.int64, device=signal.device)
        if stored > span:
            room = (moving_frames(signal) - span).clamp(min=0)
        draw = 0.5 if noise is None else noise.uniform(1, purpose="start")[:, 0].double()
        return take_frames(signal, (draw * (room + 1)).long().clamp(max=stored - 1), frames, stride)

    def picture(self, signal: Tensor, like: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) in [0, 1]: up to 8 frames left to right, evenly spread over the clip, a white line between them.

        One channel is shown as grey, otherwise the first three as red, green and blue.
        """
        clip = self._visible(signal)
        shown = [clip[:, :, frame] for frame in _spread(clip.shape[2])]
        line = clip.new_ones(*clip.shape[:2], clip.shape[3], _gap(clip.shape[4]))
        return torch.cat([part for frame in shown for part in (frame, line)][:-1], dim=3)

    def scales(self, signal: Tensor) -> Scales:
        """Across: the number of each frame shown, from 0."""
        frames, width = _spread(signal.shape[2]), signal.shape[4]
        whole = len(frames) * (width + _gap(width)) - _gap(width)
        ticks = tuple(
            ((place * (width + _gap(width)) + width / 2) / whole, str(frame)) for place, frame in enumerate(frames)
        )
        return Scales(horizontal=Scale("frame", ticks))

    def media(self, signals: Mapping[str, Tensor]) -> dict[str, bytes]:
        """One animated GIF: original, masked, reconstruction and visible parts pasted in, side by side."""
        return {"clip.gif": animation({name: self._visible(signal)[0] for name, signal in signals.items()})}

    def plain_features(self, stored: Tensor) -> dict[str, Tensor]:
        """The mean frame, and how the second half of the clip differs from the first: both on 8 x 8 pixels."""
        clip = self.prepare(stored)
        half = clip.shape[2] // 2
        mean = clip.mean(2)
        features = {"mean frame": mean}
        if half:
            features["late minus early frames"] = clip[:, :, -half:].mean(2) - clip[:, :, :half].mean(2)
        size = min(_COARSE, clip.shape[3]), min(_COARSE, clip.shape[4])
        return {name: F.adaptive_avg_pool2d(frame, size).flatten(1) for name, frame in features.items()}

    def example(self, batch: int, generator: torch.Generator) -> Tensor:
        """Smooth random clips (B, C, frames, *size) strictly between 0 and 1, that change from frame to frame."""
        frames, height, width = self.size
        # At most eight points along an axis, as of other tokenizers: what is hidden can be learnt from what isn't.
        coarse = min(frames // 2 + 1, 8), min(height // 4 + 1, 8), min(width // 4 + 1, 8)
        noise = torch.randn(batch, self.channels, *coarse, generator=generator)
        return torch.sigmoid(2 * F.interpolate(noise, self.size, mode="trilinear", align_corners=True))

    def _visible(self, signal: Tensor) -> Tensor:
        """(B, 3, T, H, W) in [0, 1]; grey where there is nothing."""
        clip = self.as_float(signal.detach()).float().clamp(0, 1).nan_to_num(ABSENT)
        if self.channels == 1:
            return clip.expand(-1, 3, -1, -1, -1)
        return F.pad(clip[:, :3], (0, 0, 0, 0, 0, 0, 0, max(3 - self.channels, 0)))

    def as_float(self, signal: Tensor) -> Tensor:
        """(B, C, T, H, W), floating point kept, uint8 divided by 255. Raises ShapeError on anything else."""
        self._check(signal)
        return signal.float() / 255 if signal.dtype == torch.uint8 else signal

    def _check(self, signal: Tensor) -> None:
        if signal.dim() != 5 or signal.shape[1] != self.channels or 0 in signal.shape:
            raise ShapeError(
                f"Tokenizer 'tubes' with channels: {self.channels} can't take this signal.",
                expected=f"(batch, {self.channels} channels, frames, height, width)",
                got=tuple(signal.shape),
                fix="Let the tokenizer's channels agree with what the data source gives.",
            )
        if signal.dtype != torch.uint8 and not signal.is_floating_point():
            raise ShapeError(
                "Clips are floating point in [0, 1], or uint8.", expected="torch.float32 or uint8", got=signal.dtype
            )


def _spread(frames: int) -> list[int]:
    """The numbers of at most 8 frames, evenly spread."""
    count = min(frames, _SHOWN)
    return [place * frames // count for place in range(count)]


def _gap(width: int) -> int:
    """Pixels between the frames of a picture."""
    return max(width // 32, 1)
