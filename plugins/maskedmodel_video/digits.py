"""The `moving_digits` source: handwritten digits that move and bounce, so nothing is downloaded."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import DataSource, Noise, Settings
from maskedmodel.sources import SampleDataset, SignalDataset, Split, stratified

_VAL_SHARE = 0.2  # of the glyphs
DIRECTIONS = ("right", "down right", "down", "down left", "left", "up left", "up", "up right")


class MovingDigitsSettings(Settings):
    """Settings of the `moving_digits` source."""

    name: Literal["moving_digits"] = "moving_digits"
    frames: int = Field(8, ge=2, le=1024, description="Frames of a clip.")
    size: int = Field(32, ge=8, le=512, description="Height and width of a frame, in pixels.")
    glyph: int = Field(16, ge=8, le=256, description="Height and width of a digit, in pixels; less than the size.")
    speed: tuple[float, float] = Field(
        (1.5, 2.5), description="Slowest and fastest a digit moves, in pixels per frame, every speed between as likely."
    )
    label: Literal["digit", "direction"] = Field(
        "digit",
        description="What a clip's label says. digit: which digit it shows. direction: the one it starts in, of eight.",
    )
    train_samples: int = Field(2000, ge=10, description="Number of training clips.")
    val_samples: int = Field(400, ge=10, description="Number of validation clips.")
    seed: int = Field(0, description="Another seed gives other clips.")

    @model_validator(mode="after")
    def _fits(self) -> MovingDigitsSettings:
        if self.glyph >= self.size:
            raise ValueError(f"glyph must be smaller than size, got {self.glyph} and {self.size} pixels")
        if not 0 < self.speed[0] <= self.speed[1]:
            raise ValueError(f"speed is a range [low, high] with 0 < low <= high, got {list(self.speed)}")
        way, room = self.speed[1] * (self.frames - 1) / 2, self.size - self.glyph
        if way > room:
            raise ValueError(
                f"at {self.speed[1]:g} pixels per frame a digit moves {way:g} pixels in half of {self.frames} frames, "
                f"and has {room} before it bounces: a clip would show no clear direction"
            )
        return self


class MovingDigits(DataSource[MovingDigitsSettings]):
    """Handwritten digits of scikit-learn (Alpaydin and Kaynak 1998) that move in a straight line and bounce off the
    edges, after Moving MNIST (Srivastava et al. 2015).

    Samples are (1, frames, size, size) uint8. A digit moves in one of eight directions, for the first half of the clip
    without a bounce. Clips of the two splits show different writings of the digits. A clip is a function of the seed,
    the split and its number alone.
    """

    def open(self, split: Split) -> SampleDataset:
        s = self.settings
        writings, digits = _writings()
        chosen = stratified(digits, range(len(digits)), _VAL_SHARE, split)
        glyphs = writings[chosen]
        if s.glyph != 8:
            glyphs = F.interpolate(glyphs, (s.glyph, s.glyph), mode="bilinear", align_corners=False)
        count = s.train_samples if split == "train" else s.val_samples
        ids = [f"{split}-{number:06d}" for number in range(count)]
        # glyph, direction, speed, and place along each axis
        draw = Noise.of(ids, seed=s.seed).uniform(5, purpose="moving digits").double()
        which = (draw[:, 0] * len(chosen)).long()
        direction = (draw[:, 1] * len(DIRECTIONS)).long()
        speed = s.speed[0] + (s.speed[1] - s.speed[0]) * draw[:, 2]
        clips = _Clips(s, glyphs[:, 0], which, direction, speed, draw[:, 3:])
        labels = [digits[chosen[int(i)]] for i in which] if s.label == "digit" else [int(i) for i in direction]
        return SignalDataset(clips, ids, labels)

    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)] if self.settings.label == "digit" else list(DIRECTIONS)


@cache
def _writings() -> tuple[Tensor, list[int]]:
    """All glyphs (N, 1, 8, 8) in [0, 1], and the digit that each is. Read from a table, so that it takes a while."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, [int(label) for label in data.target]


class _Clips:
    """Draws clip number `index`."""

    def __init__(
        self,
        settings: MovingDigitsSettings,
        glyphs: Tensor,
        which: Tensor,
        direction: Tensor,
        speed: Tensor,
        place: Tensor,
    ) -> None:
        self.settings, self.glyphs, self.which = settings, glyphs, which
        angle = direction * (2 * math.pi / len(DIRECTIONS))
        # Columns are (down, across), in pixels per frame; right is 0, down a quarter turn.
        self.velocity = speed[:, None] * torch.stack([angle.sin(), angle.cos()], 1)
        room = float(settings.size - settings.glyph)
        away = self.velocity * ((settings.frames - 1) / 2)
        # So that the first bounce comes in the second half.
        low, high = (-away).clamp(min=0), (room - away).clamp(max=room)
        self.start = low + (high - low) * place

    def __call__(self, index: int) -> Tensor:
        s, glyph = self.settings, self.glyphs[self.which[index]]
        time = torch.arange(s.frames, dtype=torch.float64)[:, None]
        place = bounce(self.start[index] + self.velocity[index] * time, s.size - s.glyph).float()
        down, across = (_shifts(place[:, axis], s.size, s.glyph) for axis in (0, 1))
        clip = down @ glyph @ across.transpose(1, 2)
        return (255 * clip).round().to(torch.uint8)[None]


def bounce(place: Tensor, room: float) -> Tensor:
    """Where something is that would be at `place`, but turns round at 0 and at `room`."""
    return room - (place.remainder(2 * room) - room).abs()


def _shifts(place: Tensor, size: int, glyph: int) -> Tensor:
    """(T, size, glyph): how much each pixel of a glyph that lies at `place` (T,) gives to each pixel of a line."""
    pixel = torch.arange(size)[None, :, None]
    from_glyph = torch.arange(glyph)[None, None, :] + place[:, None, None]
    return (1 - (pixel - from_glyph).abs()).clamp(min=0)
