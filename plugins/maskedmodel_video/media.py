"""Clips side by side as an animated GIF.

GIF rather than WebP: every viewer, browser, mail program and slide tool plays one, and every build of Pillow writes
one, where animated WebP needs an optional library. Its 256 colours a frame are enough to see what moved.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SMALLEST = 96  # pixels: smaller frames are enlarged by a whole number
MILLISECONDS = 120  # a frame is shown: 8 a second, about the pace of a clip of every fourth frame; a multiple of 10
_GAP, _BAR = 6, 16


def animation(clips: Mapping[str, Tensor]) -> bytes:
    """Clips (3, T, H, W) in [0, 1], all of one shape, played together, each under its name.

    Frames alike are merged into one that is shown longer, as the format has it.
    """
    frames = [_frame(clips, number) for number in range(next(iter(clips.values())).shape[1])]
    file = io.BytesIO()
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], duration=MILLISECONDS, loop=0, disposal=1, optimize=False
    )
    return file.getvalue()


def _frame(clips: Mapping[str, Tensor], number: int) -> Image:
    from PIL import Image, ImageDraw

    height, width = next(iter(clips.values())).shape[2:]
    times = max(-(-SMALLEST // min(height, width)), 1)
    step = width * times + _GAP
    sheet = Image.new("RGB", (len(clips) * step - _GAP, _BAR + height * times), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, clip) in enumerate(clips.items()):
        pixels = (255 * clip[:, number].permute(1, 2, 0)).round().to(torch.uint8).cpu().numpy()
        picture = Image.fromarray(np.ascontiguousarray(pixels))
        sheet.paste(picture.resize((width * times, height * times), Image.Resampling.NEAREST), (column * step, _BAR))
        draw.text((column * step + 2, 2), name, "black")
    return sheet
