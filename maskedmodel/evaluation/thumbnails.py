"""Small pictures of many samples in one: what a map of features shows of the sample that one points at.

A page carries it whole, so its size has a bound.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from maskedmodel.components import SampleDataset, Tokenizer
from maskedmodel.training.data import Reading, eval_batches
from maskedmodel.training.labelled import Subset

if TYPE_CHECKING:
    from PIL import Image

MOST = 200_000  # bytes of the picture
_SIDES = (64, 48, 40, 32, 24, 16, 12, 8)  # of a tile, the first that keeps within them
_WIDEST = 4.0  # sides of a tile to each other: what is longer is made narrower


@dataclass(frozen=True)
class Thumbnails:
    """Equal tiles in rows of `columns`, each `width` by `height` pixels.

    rows  which sample each tile shows, by its row in the features that were judged.
    kind  png or jpeg, and `data` the file as base64.
    """

    rows: tuple[int, ...]
    width: int
    height: int
    columns: int
    kind: str
    data: str

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thumbnails:
        """What `dataclasses.asdict` gave."""
        return cls(**{**values, "rows": tuple(values["rows"])})

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the whole, in pixels."""
        return self.columns * self.width, math.ceil(len(self.rows) / self.columns) * self.height

    def corner(self, row: int) -> tuple[int, int] | None:
        """The left and upper edge of a sample's tile; None where it has none."""
        if row not in self.rows:
            return None
        down, across = divmod(self.rows.index(row), self.columns)
        return across * self.width, down * self.height


def thumbnails(
    rows: Sequence[int],
    parts: Sequence[tuple[SampleDataset, int]],
    tokenizer: Tokenizer[Any],
    reading: Reading,
    most: int = MOST,
) -> Thumbnails | None:
    """Tiles of some samples, as the tokenizer draws them, of `most` bytes together; None where even small ones aren't.

    rows   of the features; `parts` the data sets that these are of, one after the other, and how many rows each has.
    """
    wanted = sorted(set(rows))
    images = list(_images(wanted, parts, tokenizer, reading))
    if not images:
        return None
    aspect = sorted(image.width / image.height for image in images)[len(images) // 2]
    stretch = math.sqrt(min(max(aspect, 1 / _WIDEST), _WIDEST))
    largest = max(math.sqrt(image.width * image.height) for image in images)
    for side in _SIDES:
        if side > max(largest, _SIDES[-1]) and side != _SIDES[-1]:
            continue  # nothing to be seen that isn't there
        size = max(round(side * stretch), 1), max(round(side / stretch), 1)
        kind, data = _encoded(_laid_out(images, size))
        if len(data) <= most:
            columns = _columns(len(images), size)
            return Thumbnails(tuple(wanted), *size, columns, kind, base64.b64encode(data).decode())
    return None


def _images(
    rows: Sequence[int], parts: Sequence[tuple[SampleDataset, int]], tokenizer: Tokenizer[Any], reading: Reading
) -> Iterator[Image.Image]:
    """The samples' pictures, no larger than the largest tile."""
    first = 0
    for dataset, count in parts:
        own = [row - first for row in rows if first <= row < first + count]
        first += count
        if not own:
            continue
        for batch in eval_batches(Subset(dataset, own), tokenizer, replace(reading, limit=None)):
            with torch.no_grad():
                drawn = tokenizer.picture(batch.signal)
            yield from map(_small, drawn)


def _small(picture: Tensor) -> Image.Image:
    from PIL import Image

    levels = (picture.detach().float().cpu().nan_to_num(0.5).clamp(0, 1) * 255).round().to(torch.uint8)
    image = Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy())
    scale = _SIDES[0] / math.sqrt(image.width * image.height)
    return image if scale >= 1 else _resized(image, scale)


def _resized(image: Image.Image, scale: float) -> Image.Image:
    from PIL import Image

    size = max(round(image.width * scale), 1), max(round(image.height * scale), 1)
    return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)


def _columns(count: int, size: tuple[int, int]) -> int:
    """So many that the whole is about as wide as high."""
    return max(round(math.sqrt(count * size[1] / size[0])), 1)


def _laid_out(images: Sequence[Image.Image], size: tuple[int, int]) -> Image.Image:
    from PIL import Image

    width, height = size
    columns = _columns(len(images), size)
    whole = Image.new("RGB", (columns * width, math.ceil(len(images) / columns) * height), (255, 255, 255))
    for number, image in enumerate(images):
        own = _resized(image, min(width / image.width, height / image.height))
        down, across = divmod(number, columns)
        left, top = (width - own.width) // 2, (height - own.height) // 2
        whole.paste(own.crop((0, 0, width, height)), (across * width + max(left, 0), down * height + max(top, 0)))
    return whole


def _encoded(whole: Image.Image) -> tuple[str, bytes]:
    """As PNG, or as JPEG where that is smaller."""
    found = {}
    for kind, more in (("png", {"optimize": True}), ("jpeg", {"quality": 80})):
        buffer = io.BytesIO()
        whole.save(buffer, kind, **more)
        found[kind] = buffer.getvalue()
    kind = min(found, key=lambda name: len(found[name]))
    return kind, found[kind]
