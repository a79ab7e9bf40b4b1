"""How a spectrogram is laid out as a picture: long ones in several rows, very long ones with fewer pixels a frame."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from maskedmodel.pictures import Scale, Scales
from maskedmodel_audio.frontend import LOWEST, LogMel

_WIDEST, _MOST = 384, 1536  # pixels of a row, and of all rows together, as far as tokens allow
GAP = 4  # pixels between rows
_HERTZ = (100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000)


@dataclass(frozen=True)
class Rows:
    """Where frames lie in a picture.

    pool   frames that share a column of pixels.
    count  rows, one under the other.
    width  pixels of a row.
    mels   pixels of a row's height.
    """

    pool: int
    count: int
    width: int
    mels: int

    @classmethod
    def of(cls, frames: int, mels: int, patch: int) -> Rows:
        """`patch` is the length of a token in frames: rows break between tokens, and no column shows two."""
        pool = 1
        while frames > _MOST * pool and patch % (2 * pool) == 0:
            pool *= 2
        columns, unit = _up(frames, pool), patch // pool
        width = _up(_up(columns, _up(columns, _WIDEST)), unit) * unit
        return cls(pool, _up(columns, width), width, mels)

    @property
    def height(self) -> int:
        return self.count * (self.mels + GAP) - GAP

    def wrap(self, values: Tensor, nothing: float) -> Tensor:
        """(B, frames, mels) to (B, height, width), low frequencies at the bottom of each row.

        Columns of several frames show their mean, of those that are there. `nothing` stands where no frame is; between
        the rows, too.
        """
        room = self.count * self.width * self.pool - values.shape[1]
        whole = F.pad(values, (0, 0, 0, room), value=torch.nan)
        if self.pool > 1:
            whole = whole.reshape(len(values), -1, self.pool, self.mels).nanmean(2)
        rows = whole.reshape(len(values), self.count, self.width, self.mels).transpose(2, 3).flip(2)
        picture = F.pad(rows, (0, 0, 0, GAP), value=torch.nan).flatten(1, 2)[:, : self.height]
        return picture if math.isnan(nothing) else picture.nan_to_num(nothing)

    @property
    def lines(self) -> list[slice]:
        """The pixel rows between the rows."""
        step = self.mels + GAP
        return [slice(row * step - GAP, row * step) for row in range(1, self.count)]

    def scales(self, frames: int, front_end: LogMel) -> Scales:
        """Seconds from the start of each row, and the frequencies of the mel bins in each."""
        second = front_end.shift / front_end.rate
        shown = self.width * self.pool * second if self.count > 1 else frames * second
        step = next(step for step in _steps() if shown / step <= 6)
        ticks = tuple((count * step / shown, f"{count * step:g}") for count in range(int(shown / step) + 1))
        title = "time (s)" if self.count == 1 else f"time (s), each row {shown:.3g} s after the one above"
        hertz = [f for f in _HERTZ if LOWEST < f < front_end.rate / 2]
        if self.count > 1:
            hertz = [f for f in hertz if f in (200, 1000, 5000, 20000)]
        places = [
            ((row * (self.mels + GAP) + (1 - front_end.place(f) / front_end.mels) * self.mels) / self.height, f"{f:g}")
            for row in range(self.count)
            for f in reversed(hertz)
            if 0 <= front_end.place(f) <= front_end.mels
        ]
        return Scales(Scale(title, ticks), Scale("frequency (Hz)", tuple(places)))


def _up(count: int, unit: int) -> int:
    """How many units hold so many."""
    return -(-count // unit)


def _steps() -> Iterator[float]:
    """1, 2 and 5 times the powers of ten, rising."""
    for power in range(-4, 9):
        yield from (digit * 10.0**power for digit in (1, 2, 5))
