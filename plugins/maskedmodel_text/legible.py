"""Text drawn to be read: one cell of equal size for each id, wrong ones in red."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel.pictures import Scale, Scales

_WIDE, _HIGH = 9, 18  # pixels of a character
_ACROSS, _ROWS = 64, 34  # characters of a row, and rows, at most: what fits on a sheet without being made smaller
_INK, _FAINT, _WRONG = (0.11, 0.13, 0.14), (0.72, 0.74, 0.76), (0.80, 0.05, 0.08)
_WRONG_PAPER = (1.0, 0.86, 0.86)
# What has no shape of its own, drawn faintly so that it can be told from nothing.
_SHOWN = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u2192", "\r": "\u2190", "": "_"}


class Grid:
    """Where cells of `width` characters stand: `count` of them, row by row, as many as can be read."""

    def __init__(self, count: int, width: int) -> None:
        self.count, self.width = count, width
        self.across = max(min(_ACROSS // width, count), 1)
        self.rows = min(-(-count // self.across), _ROWS)
        self.drawn = min(count, self.rows * self.across)

    def pixels(self, cells: Tensor) -> Tensor:
        """(B, height, width) of one value for each cell (B, count)."""
        room = cells.new_zeros(len(cells), self.rows * self.across)
        room[:, : self.drawn] = cells[:, : self.drawn]
        image = room.reshape(-1, self.rows, self.across)
        return image.repeat_interleave(_HIGH, 1).repeat_interleave(_WIDE * self.width, 2)

    def scales(self, noun: str) -> Scales:
        """The number of the first cell of each row, and how much isn't drawn."""
        ticks = tuple(((row + 0.5) / self.rows, str(row * self.across)) for row in range(self.rows))
        rest = "" if self.drawn == self.count else f", the first {self.drawn} of {self.count}"
        return Scales(vertical=Scale(noun + rest, ticks))


def page(spelled: Sequence[Sequence[str | None]], wrong: Tensor, width: int) -> Tensor:
    """(B, 3, height, width) in [0, 1] of what cells say; None: there is nothing, "": the rest of the character before.

    wrong   (B, count) bool: cells that are drawn in red.
    width   characters of a cell; longer texts are cut, with an ellipsis.
    """
    grid = Grid(wrong.shape[1], width)
    ink, faint = torch.zeros(2, len(spelled), grid.rows, _HIGH, grid.across, _WIDE * width)
    for row, texts in enumerate(spelled):
        for place, text in enumerate(texts[: grid.drawn]):
            if text is not None:
                layer = faint if text in _SHOWN else ink
                down, across = divmod(place, grid.across)
                layer[row, down, :, across] = _glyph(_SHOWN.get(text, text), width)
    ink, faint = (layer.reshape(len(spelled), 1, grid.rows * _HIGH, -1) for layer in (ink, faint))
    red = grid.pixels(wrong.cpu())[:, None]
    picture: Tensor = torch.where(red, _colour(_WRONG_PAPER), torch.ones(3, 1, 1))
    picture = picture + ink * (torch.where(red, _colour(_WRONG), _colour(_INK)) - picture)
    picture += faint * (torch.where(red, _colour(_WRONG), _colour(_FAINT)) - picture)
    return picture


def _colour(levels: tuple[float, float, float]) -> Tensor:
    return torch.tensor(levels).reshape(3, 1, 1)


@lru_cache(maxsize=4096)
def _glyph(text: str, width: int) -> Tensor:
    """How much ink each pixel of a cell gets, (height, width) in [0, 1]."""
    from PIL import Image, ImageDraw

    text = "".join(_SHOWN.get(letter, letter) for letter in text)
    text = text if len(text) <= width else text[: width - 1] + "\u2026"
    cell = Image.new("L", (_WIDE * width, _HIGH))
    ImageDraw.Draw(cell).text((0, 0), text, 255, _font())
    return torch.from_numpy(np.asarray(cell, np.float32) / 255)


@lru_cache(maxsize=1)
def _font() -> Any:
    """DejaVu Sans Mono, which comes with matplotlib; a letter of it is nine pixels wide at this size."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")), 15)
