"""Small pictures laid out with text: enlarged by whole pixels, so that what is drawn is what is there."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from maskedmodel.errors import DataError
from maskedmodel.files import replacing
from maskedmodel.pictures.scales import ABSENT, Scales

if TYPE_CHECKING:
    from PIL import Image, ImageFont

GREY = ABSENT  # what is hidden looks like what isn't there
SMALLEST, WIDE, LARGEST = 144, 480, 640  # pixels of a panel's longer side: at least, at least if wide, at most
_MARGIN, _GAP, _LINE = 16, 12, 18
_WHITE, _INK, _FAINT = (255, 255, 255), (28, 32, 36), (104, 112, 120)


@dataclass(frozen=True)
class Panel:
    """One picture (3, H, W) in [0, 1]; `edges` as from `token_edges`, drawn as lines."""

    picture: Tensor
    edges: tuple[Tensor, Tensor] | None = None


@dataclass
class Sheet:
    """Rows of panels under column headings, with a title, lines of explanation and a caption of lines per row.

    Wide pictures are laid under each other instead, each under its own heading. Samples lie side by side, too, where
    the sheet would be much taller than wide. `scales` say what the sides of every panel mean: the vertical one stands
    left of a row, the horizontal one below each panel.
    """

    title: str
    lines: Sequence[str]
    headings: Sequence[str]
    rows: list[list[Panel]]
    captions: Sequence[str | tuple[str, ...]] | None = None
    scales: Scales = field(default_factory=Scales)
    facts: dict[str, str] = field(default_factory=dict)  # kept in the file as PNG text
    smallest: int = SMALLEST  # pixels of a panel's longer side, at least, where it isn't wide

    def draw(self) -> Image.Image:
        """The picture of it all, RGB."""
        from PIL import Image, ImageDraw

        height, width = self.rows[0][0].picture.shape[1:]
        repeat = width > 2 * height
        columns = 1 if repeat else len(self.headings)
        tiles = [[_tile(panel, WIDE if repeat else self.smallest) for panel in row] for row in self.rows]
        tile_w, tile_h = tiles[0][0].size
        left, below = _room(self.scales)
        # A panel narrower than its heading would let headings run into each other.
        step = max(tile_w, max(round(_font(13, True).getlength(text)) for text in self.headings))
        cell_h = tile_h + below
        per_row = -(-len(self.headings) // columns) * (cell_h + _GAP + (_LINE if repeat else 0))
        spoken = [(caption,) if isinstance(caption, str) else caption for caption in self.captions or ()]
        per_row += _LINE * max(map(len, spoken)) + 4 if spoken else 0
        block = left + columns * step + (columns - 1) * _GAP
        across = _across(len(tiles), block + 2 * _GAP, per_row, 1.5 if repeat else 2.5)
        inner = max(across * (block + 2 * _GAP) - 2 * _GAP, 480)
        parts = [(line, 12, _FAINT) for text in self.lines for line in _wrap(text, 12, inner)]
        top = _MARGIN + 26 + _LINE * len(parts) + 10
        total = top + (0 if repeat else _LINE + 4) + per_row * -(-len(tiles) // across) + _MARGIN - _GAP
        sheet = Image.new("RGB", (inner + 2 * _MARGIN, total), _WHITE)
        draw = ImageDraw.Draw(sheet)
        draw.text((_MARGIN, _MARGIN), _cut(self.title, 16, inner, True), _INK, _font(16, True))
        for number, (line, size, colour) in enumerate(parts):
            draw.text((_MARGIN, _MARGIN + 26 + _LINE * number), line, colour, _font(size))
        if not repeat:
            for column, text in enumerate([*self.headings] * across):
                start = column // columns * (block + 2 * _GAP) + column % columns * (step + _GAP)
                draw.text((_MARGIN + left + start, top), text, _INK, _font(13, True))
            top += _LINE + 4
        for number, row in enumerate(tiles):
            x = _MARGIN + left + number % across * (block + 2 * _GAP)
            y = top + number // across * per_row
            for index, tile in enumerate(row):
                if repeat:
                    draw.text((x, y), self.headings[index], _INK, _font(13, True))
                    y += _LINE
                place = x + (index % columns) * (step + _GAP), y
                sheet.paste(tile, place)
                _draw_scales(sheet, self.scales, (*place, *tile.size), index % columns == 0)
                y += cell_h + _GAP if repeat else 0
            y += 0 if repeat else cell_h + _GAP
            room = (block if across > 1 else inner) - left
            for down, words in enumerate(spoken[number] if spoken else ()):
                draw.text((x, y - _GAP + 4 + _LINE * down), _cut(words, 12, room), _FAINT, _font(12))
        sheet.info.update(self.facts)
        return sheet


def _across(count: int, width: int, height: int, tallest: float) -> int:
    """How many of `count` blocks lie side by side: as few as keep the sheet's height to `tallest` times its width."""
    return next((n for n in range(1, count) if -(-count // n) * height <= tallest * n * width), max(count, 1))


def _room(scales: Scales) -> tuple[int, int]:
    """Pixels that scales need left of a row and below a panel."""
    left = below = 0
    if scales.vertical is not None:
        widest = max((_font(10).getlength(text) for _, text in scales.vertical.ticks), default=0.0)
        left = round(widest) + 10 + (_LINE if scales.vertical.title else 0)
    if scales.horizontal is not None:
        below = (14 if scales.horizontal.ticks else 0) + (14 if scales.horizontal.title else 0) + 4
    return left, below


def _draw_scales(sheet: Image.Image, scales: Scales, box: tuple[int, int, int, int], first: bool) -> None:
    """Ticks and titles around a panel at (x, y, width, height); the vertical scale only where it is first of a row."""
    from PIL import Image, ImageDraw

    x, y, width, height = box
    draw = ImageDraw.Draw(sheet)
    if scales.horizontal is not None:
        for place, text in scales.horizontal.ticks:
            at = x + round(place * (width - 1))
            draw.line([(at, y + height), (at, y + height + 3)], _FAINT)
            half = _font(10).getlength(text) / 2
            draw.text((min(max(at - half, x), x + width - 2 * half), y + height + 3), text, _FAINT, _font(10))
        title = scales.horizontal.title
        down = 17 if scales.horizontal.ticks else 3
        draw.text((x + (width - _font(10).getlength(title)) / 2, y + height + down), title, _FAINT, _font(10))
    if scales.vertical is not None and first:
        for place, text in scales.vertical.ticks:
            at = y + round(place * (height - 1))
            draw.line([(x - 4, at), (x - 1, at)], _FAINT)
            draw.text(
                (x - 6 - _font(10).getlength(text), min(max(at - 6, y - 2), y + height - 10)), text, _FAINT, _font(10)
            )
        if scales.vertical.title:
            title = _cut(scales.vertical.title, 10, max(height, 60))
            strip = Image.new("RGB", (round(_font(10).getlength(title)) + 2, 14), _WHITE)
            ImageDraw.Draw(strip).text((1, 0), title, _FAINT, _font(10))
            turned = strip.rotate(90, expand=True)
            sheet.paste(turned, (x - _room(scales)[0], y + (height - turned.height) // 2))


def save_png(image: Image.Image, path: Path | str) -> Path:
    """Write a picture whole or not at all, with its facts as PNG text. Raises DataError where the disk refuses."""
    from PIL.PngImagePlugin import PngInfo

    path = Path(path)
    info = PngInfo()
    for key, value in image.info.items():
        info.add_itxt(str(key), str(value))
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info, optimize=True)
    return save_file(content.getvalue(), path)


def save_file(content: bytes, path: Path) -> Path:
    """Write a picture or sound whole or not at all. Raises DataError where the disk refuses."""
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise DataError(
            "A picture can't be written.",
            where=path,
            got=error.strerror or error,
            fix="Name a folder that exists, may be written to and has room.",
        ) from error
    return path


def token_edges(parity: Tensor) -> tuple[Tensor, Tensor]:
    """Where neighbouring pixels belong to different tokens, of a chequered picture (H, W) bool.

    (H - 1, W) between a pixel and the one below, (H, W - 1) between a pixel and the one to the right.
    """
    return parity[1:] != parity[:-1], parity[:, 1:] != parity[:, :-1]


def _tile(panel: Panel, smallest: int) -> Image.Image:
    from PIL import Image

    levels = (panel.picture.detach().float().cpu().nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    longer = max(levels.shape[1:])
    factor = max(-(-smallest // longer), 1)
    pixels = levels.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
    if panel.edges is not None:
        below, right = (edge.cpu() for edge in panel.edges)
        ink = torch.tensor([20, 110, 220], dtype=torch.uint8)[:, None, None]
        down = torch.zeros(pixels.shape[1:], dtype=torch.bool)
        down[factor - 1 : -1 : factor] = below.repeat_interleave(factor, 1)
        across = torch.zeros(pixels.shape[1:], dtype=torch.bool)
        across[:, factor - 1 : -1 : factor] = right.repeat_interleave(factor, 0)
        pixels = torch.where(down | across, ink, pixels)
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
    if longer > LARGEST:
        scale = LARGEST / longer
        image = image.resize(
            (max(round(image.width * scale), 1), max(round(image.height * scale), 1)), Image.Resampling.BOX
        )
    return image


@lru_cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers far more than Latin."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(os.path.join(matplotlib.get_data_path(), "fonts", "ttf", name), size)


def _cut(text: str, size: int, width: int, bold: bool = False) -> str:
    """`text` on one line, its middle left out where it is wider than `width` pixels: both ends of a path matter."""
    text, font = " ".join(text.split()), _font(size, bold)
    if len(text) > 2000:
        text = text[:1000] + text[-1000:]
    short = text
    if font.getlength(text) <= width:
        return text
    keep = len(text)
    while keep > 2 and font.getlength(short := f"{text[: keep // 2]}...{text[-(keep // 2) :]}") > width:
        keep -= max(keep // 20, 1)
    return short


def _wrap(text: str, size: int, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and _font(size).getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(_cut(word, size, width))
    return lines
