"""The `cubes` source: hyperspectral cubes as .npy or MATLAB files, in a folder or archive."""

from __future__ import annotations

from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskedmodel import DataSource, Fact
from maskedmodel.errors import DataError
from maskedmodel.sources import LabelledFiles, Part, SampleDataset, SignalDataset, Split, holds, parsing
from maskedmodel_spectra.bands import CubesSettings, wanted_bands
from maskedmodel_spectra.reading import Cube, band_facts, read_cube

_EXTENSIONS = (".npy", ".mat")


class _Windows:
    """Window `index` of a split: the number of its cube, its top and its left."""

    def __init__(self, source: Cubes, part: Part, places: list[tuple[int, int, int]]) -> None:
        self.source, self.part, self.places = source, part, places

    def __call__(self, index: int) -> Tensor:
        number, top, left = self.places[index]
        cube, size = self.source.cube(self.part, number), self.source.settings.window
        cut = cube.values[:, top : top + size, left : left + size]
        return torch.from_numpy(wanted_bands(cut, cube.wavelengths, self.source.settings.wavelengths))


class Cubes(DataSource[CubesSettings]):
    """Windows (bands, window, window) float32 at the wavelengths that are asked for, between a cube's own by a line.

    A wavelength beyond a cube's own is NaN. The split is by cube, and the windows of a cube are one group; what is left
    over at its right and bottom is left out. Labels are of whole cubes. Classes of pixels aren't read.
    """

    gives_nan = True

    @classmethod
    def example_settings(cls, folder: Path) -> CubesSettings:
        """Six cubes of other bands, written into `folder`: what the conformance kit reads."""
        draw = np.random.default_rng(0)
        for number in range(6):
            own = np.linspace(400, 900, 6 + number)
            place = folder / f"kind{number % 2}"
            place.mkdir(exist_ok=True)
            np.save(place / f"{number}.npy", draw.uniform(size=(17, 16, len(own))))
            (place / f"{number}.wavelengths.txt").write_text("\n".join(map(str, own)))
        return CubesSettings(path=str(folder), window=8, val_share=0.4)

    def __init__(self, settings: CubesSettings | None = None, **values: Any) -> None:
        super().__init__(settings, **values)
        self._kept: tuple[str, Cube] | None = None

    @cached_property
    def _files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, _EXTENSIONS, "cubes")

    def cube(self, part: Part, number: int) -> Cube:
        """A cube with its wavelengths; the last one that was read is kept. Raises DataError where it can't be read."""
        where = part.name(number)
        if self._kept is None or self._kept[0] != where:
            with part.open(number) as stream, parsing("The cube can't be read.", where):
                content = stream.read()
            self._kept = where, read_cube(BytesIO(content), part, number, self.settings)
        return self._kept[1]

    def _cube(self, part: Part, number: int) -> Cube | DataError:
        try:
            return self.cube(part, number)
        except DataError as error:
            return error

    def open(self, split: Split) -> SampleDataset:
        """Reads each cube once, for its size."""
        part, size = self._files.part(split), self.settings.window
        places = list[tuple[int, int, int]]()
        for number in range(len(part.ids)):
            cube = self._cube(part, number)
            if isinstance(cube, DataError):  # one sample: reading it says why, and the run's policy decides
                places.append((number, 0, 0))
                continue
            height, width = cube.values.shape[1:]
            corners = [
                (top, left) for top in range(0, height - size + 1, size) for left in range(0, width - size + 1, size)
            ]
            places += [(number, top, left) for top, left in corners]
        if not places:
            raise DataError(f"No cube of {split!r} is as large as a window.", where=self.settings.path, expected=size)
        ids = [f"{part.ids[number]}@{top},{left}" for number, top, left in places]
        labels = None if part.labels is None else [part.labels[number] for number, *_ in places]
        groups = [(part.groups or part.ids)[number] for number, *_ in places]
        return SignalDataset(_Windows(self, part, places), ids, labels, groups)

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def channel_names(self) -> list[str]:
        return [f"{wavelength:g} nm" for wavelength in self.settings.wavelengths]

    def facts(self) -> list[Fact]:
        """Files, labels and split, then bands and sizes of all cubes, and which wavelengths they don't reach."""
        parts, found = self._files.parts().values(), self._files.facts()
        cubes = [self._cube(part, number) for part in parts for number in range(len(part.ids))]
        return [*found, *band_facts(cubes, self.settings.wavelengths)]

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and holds(path, (".mat",))
