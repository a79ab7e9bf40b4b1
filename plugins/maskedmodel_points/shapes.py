"""The `shapes` source: points on the surfaces of solids made by formula, so nothing is downloaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import DataSource, Sample, Settings
from maskedmodel.sources import SampleDataset, SignalDataset, Split
from maskedmodel_points.solids import KINDS, surface

_REMEMBERED = 2**28  # bytes of clouds that a worker keeps


class ShapesSettings(Settings):
    """Settings of the `shapes` source."""

    name: Literal["shapes"] = "shapes"
    train_samples: int = Field(2000, ge=1, description="Number of training clouds.")
    val_samples: int = Field(500, ge=1, description="Number of validation clouds.")
    fewest: int = Field(512, ge=16, description="Points of the smallest cloud.")
    most: int = Field(1024, ge=16, le=2**20, description="Points of the largest cloud; numbers are even in between.")
    size: tuple[float, float] = Field((0.5, 2.0), description="Range of a solid's size, even in its logarithm.")
    noise: float = Field(0.02, ge=0, lt=1, description="Standard deviation of each coordinate, as a share of the size.")
    turn: Literal["none", "upright", "any"] = Field(
        "any", description="How solids are turned. upright: about the third axis. any: in every way."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="What the clouds are drawn from.")

    @model_validator(mode="after")
    def _consistent(self) -> ShapesSettings:
        if self.fewest > self.most:
            raise ValueError(f"fewest must not exceed most, got {self.fewest} and {self.most}")
        if not 0 < self.size[0] <= self.size[1] < float("inf"):
            raise ValueError(f"size is a range with 0 < low <= high, got {list(self.size)}")
        return self


class _Maker:
    """Cloud `index` of a split: a function of settings and index alone."""

    def __init__(self, settings: ShapesSettings, split: Split) -> None:
        self.settings, self.stream = settings, ("train", "val").index(split)

    def kind(self, index: int) -> int:
        """Each kind once among eight that follow each other, in an order of their own: every part has all kinds."""
        block, place = divmod(index, len(KINDS))
        return int(np.random.default_rng([self.settings.seed, self.stream, block, 1]).permutation(len(KINDS))[place])

    def __call__(self, index: int) -> Tensor:
        s = self.settings
        draw = np.random.default_rng([s.seed, self.stream, index])
        count = int(draw.integers(s.fewest, s.most + 1))
        points = surface(KINDS[self.kind(index)], count, draw)
        points /= np.sqrt(np.square(points).sum(1).max())
        points += s.noise * draw.standard_normal(points.shape)
        points = points * math.exp(draw.uniform(*np.log(s.size))) @ _turn(s.turn, draw).T
        return torch.from_numpy(points.astype(np.float32))


def _turn(how: str, draw: np.random.Generator) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """A rotation (3, 3)."""
    if how == "any":  # the axes of a cloud of Gaussian points, made right-handed (Stewart 1980)
        axes, upper = np.linalg.qr(draw.standard_normal((3, 3)))
        axes = axes * np.sign(np.diag(upper))
        axes[:, 2] *= np.sign(np.linalg.det(axes))
        return axes
    angle = 0.0 if how == "none" else draw.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


class Shapes(DataSource[ShapesSettings]):
    """Balls, boxes, cylinders, cones, tori, capsules, pyramids and prisms, of all proportions, sizes and directions.

    Samples are (points, 3) float32 of uneven numbers, labelled by kind, even over the surface by area, with noise. A
    cloud depends on the seed, the split and its index alone, so that asking for more changes none.
    """

    def open(self, split: Split) -> SampleDataset:
        count = self.settings.train_samples if split == "train" else self.settings.val_samples
        ids = [f"{split}-{index:05d}" for index in range(count)]
        maker = _Maker(self.settings, split)
        return SignalDataset(maker, ids, [maker.kind(index) for index in range(count)], remember=_REMEMBERED)

    def class_names(self) -> list[str]:
        return list(KINDS)

    def read(self, path: Path) -> Sample:
        from maskedmodel_points.files import FilesSettings, read_file

        return read_file(path, FilesSettings(name="file"))
