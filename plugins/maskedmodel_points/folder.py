"""The `points_folder` source: a folder of point clouds and surfaces, or an archive of one."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.sources import FileSettings, LabelledFiles, Part, SampleDataset, Split, holds
from maskedmodel_points.facts import facts_of
from maskedmodel_points.files import FilesSettings, read_cloud, read_file
from maskedmodel_points.reading import EXTENSIONS, MESHES

_SURE = (".ply", ".xyz", *MESHES)  # arrays may hold anything


class PointsFolderSettings(FilesSettings, FileSettings):
    """Settings of the `points_folder` source."""

    name: Literal["points_folder"] = "points_folder"


class _Clouds:
    """Samples of a split, each with the notes of how it was read."""

    def __init__(self, part: Part, settings: FilesSettings) -> None:
        self.part, self.settings = part, settings

    def __len__(self) -> int:
        return len(self.part.ids)

    def __getitem__(self, index: int, /) -> Sample:
        part = self.part
        with part.open(index) as stream:
            signal, notes = read_cloud(stream, part.name(index), part.ids[index], self.settings)
        sample = Sample(signal=signal, id=part.ids[index])
        label = None if part.labels is None else part.labels[index]
        if label is not None:
            sample["label"] = label
        if part.groups is not None:
            sample["group"] = part.groups[index]
        if notes:
            sample["notes"] = notes
        return sample


class PointsFolder(DataSource[PointsFolderSettings]):
    """Clouds and surfaces in a folder, a zip or a tar, labelled by sub-folder, by a table, or by JSON beside them.

    Signals are (points, 3 + features) float32, of any numbers of points.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> PointsFolderSettings:
        """Two classes of clouds, written into `folder`: what the conformance kit reads."""
        draw = np.random.default_rng(0)
        for number in range(20):
            path = folder / f"class{number % 2}" / f"{number}.npy"
            path.parent.mkdir(exist_ok=True)
            np.save(path, draw.standard_normal((20 + number, 3)))
        return PointsFolderSettings(path=str(folder), points=30)

    @cached_property
    def _files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, EXTENSIONS, "files of points")

    def open(self, split: Split) -> SampleDataset:
        return _Clouds(self._files.part(split), self.settings)

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def facts(self) -> list[Fact]:
        return [*self._files.facts(), *facts_of(tuple(self._files.parts().values()), self.settings.surface)]

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, _SURE)
