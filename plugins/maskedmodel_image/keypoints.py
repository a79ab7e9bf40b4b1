"""Keypoints of images: x and y of each in the columns of a table, or in JSON files beside the images."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import Fact, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import EncodedFiles
from maskedmodel_image.decode import Form, ImageFileSettings, open_image, reading, shown_box, upright_size

_SIDES = re.compile("left|right", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


class KeypointSettings(Settings):
    """Which points images have, and what they are called."""

    points: tuple[str, ...] = Field(
        (),
        description="Names of keypoints, for task points. Of each NAME the table or the JSON files have NAME_x and "
        "NAME_y: pixels of the upright image from its left and its upper edge. Without a value a point isn't known. "
        "[]: none.",
    )
    point_pairs: tuple[tuple[str, str], ...] | None = Field(
        None,
        description="Points that a mirrored image exchanges, as [[left_eye, right_eye]]. null: those whose names "
        "differ by left and right alone.",
    )

    @model_validator(mode="after")
    def _points_make_sense(self) -> KeypointSettings:
        if len(set(self.points)) < len(self.points):
            raise ValueError(f"points names one twice: {', '.join(self.points)}")
        paired = [name for pair in self.point_pairs or () for name in pair]
        strange = [name for name in paired if name not in self.points]
        if strange or len(set(paired)) < len(paired):
            raise ValueError(f"point_pairs has each of points once at most, got {', '.join(strange or paired)}")
        return self

    def mirrored(self) -> list[int]:
        """Of each point the number of its mirror image: its own, another's, or -1 where that isn't among the points."""
        if self.point_pairs is not None:
            other = {one: two for pair in self.point_pairs for one, two in (pair, pair[::-1])}
        else:
            other = {name: _SIDES.sub(_swapped, name) for name in self.points}
        names = [other.get(name, name) for name in self.points]
        return [self.points.index(name) if name in self.points else -1 for name in names]


def _swapped(found: re.Match[str]) -> str:
    """The other side, in the same case."""
    word = found.group()
    other = _OTHER[word.lower()]
    return other.upper() if word.isupper() else other.capitalize() if word[0].isupper() else other


def columns_of(points: Sequence[str]) -> list[str]:
    """The columns that hold these points."""
    return [f"{name}_{axis}" for name in points for axis in "xy"]


def facts_of_points(settings: KeypointSettings, cells: Sequence[tuple[str | None, ...]]) -> list[Fact]:
    """How many images have points, and which of them change places in a mirrored image."""
    count = len(settings.points)
    have = sum(any(row) for row in cells)
    whole = sum(all(row) for row in cells)
    told = f"{have:,} of {len(cells):,} images have some of {count}, {whole:,} all"
    facts = [Fact("points", told, have < len(cells))]
    other = settings.mirrored()
    if settings.point_pairs is None:
        pairs = [f"{settings.points[one]} and {settings.points[two]}" for one, two in enumerate(other) if two > one]
        if pairs:
            facts.append(Fact("points", f"a mirrored image exchanges {', '.join(pairs)}, by their names", True))
        alone = [name for name, two in zip(settings.points, other, strict=True) if two < 0]
        if alone:
            told = f"of a mirrored image not known, since the other side isn't among the points: {', '.join(alone)}"
            facts.append(Fact("points", told, True))
    return facts


class Boxes:
    """Which part of its file image number `index` shows as it is stored, (2, 2) float32: height, then width."""

    def __init__(self, images: EncodedFiles, chosen: Sequence[int], form: Form, settings: ImageFileSettings) -> None:
        self.images, self.chosen, self.form, self.settings = images, chosen, form, settings

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the upright image."""
        number = self.chosen[index]
        name = self.images.name(number)
        with self.images.open(number) as stream, reading(name):
            return upright_size(*open_image(stream, name, self.settings.max_pixels))

    def __call__(self, index: int) -> Tensor:
        return shown_box(self.size(index), self.form)


class Keypoints:
    """The points of image number `index`, (K, 3) as `Sample` says; None where the labels name none of them.

    Raises DataError where one has a single coordinate, one that is no number, or one outside of its image.
    """

    def __init__(
        self, settings: KeypointSettings, cells: Sequence[tuple[str | None, ...]], boxes: Boxes, ids: Sequence[str]
    ) -> None:
        self.settings, self.cells, self.boxes, self.ids = settings, cells, boxes, ids
        self.mirrored = torch.tensor(settings.mirrored(), dtype=torch.float32)

    def __call__(self, index: int) -> Tensor | None:
        row = self.cells[index]
        if not any(row):
            return None
        height, width = self.boxes.size(index)
        points = []
        for place, name in enumerate(self.settings.points):
            x, y = row[2 * place : 2 * place + 2]
            if x is None and y is None:
                points.append((math.nan, math.nan))
                continue
            found = (_number(x), _number(y))
            if not (0 <= found[0] <= width and 0 <= found[1] <= height):  # nor where one is NaN
                raise DataError(
                    f"The point {name!r} isn't within its image.",
                    where=self.ids[index],
                    expected=f"x from 0 to {width}, y from 0 to {height}, or neither",
                    got=f"{x or 'none'}, {y or 'none'}",
                    fix="Leave both cells empty where a point isn't known.",
                )
            points.append(found)
        (top, bottom), (left, right) = shown_box((height, width), self.form).tolist()
        stored_h, stored_w = self.form.shape[1:]
        shift, scale = torch.tensor([left, top]), torch.tensor([stored_w / (right - left), stored_h / (bottom - top)])
        return torch.cat([(torch.tensor(points) - shift) * scale, self.mirrored[:, None]], 1)

    @property
    def form(self) -> Form:
        """That of the stored images."""
        return self.boxes.form


def _number(text: str | None) -> float:
    """NaN where there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
