"""The `image_folder` source: a folder of image files, or an archive of one."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.sources import FileSettings, LabelledFiles, SampleDataset, Split, holds
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import EXTENSIONS, ImageFileSettings
from maskedmodel_image.facts import facts_of


class ImageFolderSettings(ImageFileSettings, FileSettings):
    """Settings of the `image_folder` source."""

    name: Literal["image_folder"] = "image_folder"


class ImageFolder(DataSource[ImageFolderSettings]):
    """Images in a folder, a zip or a tar, labelled by sub-folder, by a table, or by JSON files beside them."""

    @classmethod
    def example_settings(cls, folder: Path) -> ImageFolderSettings:
        """Two classes of random pictures, written into `folder`: what the conformance kit reads."""
        from PIL import Image

        pixels = np.random.default_rng(0).integers(0, 256, (20, 12, 10, 3), dtype=np.uint8)
        for number, picture in enumerate(pixels):
            path = folder / f"class{number % 2}" / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(picture).save(path)
        return ImageFolderSettings(path=str(folder), size=8)

    @cached_property
    def _files(self) -> LabelledFiles:
        return LabelledFiles(self.settings, EXTENSIONS, "images")

    def open(self, split: Split) -> SampleDataset:
        part = self._files.part(split)
        form = form_of(self._files.files, self.settings)
        return open_images(part.files, part.chosen, part.ids, part.labels, form, self.settings, split, part.groups)

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def facts(self) -> list[Fact]:
        parts = self._files.parts().values()
        chosen = [number for part in parts for number in part.chosen if part.files is self._files.files]
        return [*self._files.facts(), *facts_of(self._files.files, chosen, self.settings)]

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, EXTENSIONS)
