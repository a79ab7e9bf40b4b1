"""The `image_folder` source: a folder of image files, or an archive of one."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from maskedmodel import DataSource, Fact, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import FileSettings, LabelledFiles, SampleDataset, Split, holds, path_of
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import EXTENSIONS, ImageFileSettings
from maskedmodel_image.facts import facts_of
from maskedmodel_image.keypoints import Boxes, Keypoints, KeypointSettings, columns_of, facts_of_points
from maskedmodel_image.masks import MaskFiles, Masks, MaskSettings


class ImageFolderSettings(KeypointSettings, MaskSettings, ImageFileSettings, FileSettings):
    """Settings of the `image_folder` source."""

    name: Literal["image_folder"] = "image_folder"

    @model_validator(mode="after")
    def _one_kind_of_target(self) -> ImageFolderSettings:
        if self.points and self.masks is not None:
            raise ValueError("masks and points are learned by different tasks: leave one of them out")
        return self


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
        settings, boxes = self.settings, Boxes(part.files, part.chosen, form, self.settings)
        targets: Masks | Keypoints | None = None
        if self._masks is not None:
            targets = Masks(self._masks, part.files, part.chosen, part.ids, form, settings)
        elif settings.points:
            targets = Keypoints(settings, self._cells(split), boxes, part.ids)
        return open_images(
            part.files,
            part.chosen,
            part.ids,
            part.labels,
            form,
            settings,
            split,
            self.read_timeout,
            part.groups,
            targets,
            boxes,
        )

    def _cells(self, split: Split) -> list[tuple[str | None, ...]]:
        """What is said of the points of a split's images."""
        return self._files.cells(split, columns_of(self.settings.points), "keypoint")

    @cached_property
    def _masks(self) -> MaskFiles | None:
        """Where the masks are. Raises DataError where they lie among the images, or images have two homes."""
        masks, path = self.settings.masks, self.settings.path
        if masks is None:
            return None
        if self.settings.val_path is not None:
            raise DataError(
                "Masks are found by an image's path below data.path, so images of data.val_path can't have any.",
                where="data.masks, data.val_path",
                fix="Put all images below data.path, in folders named train and val.",
            )
        if path_of(masks, DataError).resolve().is_relative_to(path_of(path, DataError).resolve()):
            raise DataError(
                "The masks lie among the images, and would be taken for such.",
                where="data.masks",
                expected=f"a folder beside {path}",
                got=masks,
                fix=f"Name the folder of images alone with data.path, such as {path}/images.",
            )
        return MaskFiles(self.settings)

    def target_names(self) -> list[str] | None:
        if self.settings.points:
            return list(self.settings.points)
        return None if self.settings.masks is None else list(self.settings.mask_classes)

    def class_names(self) -> list[str] | None:
        return self._files.class_names

    def facts(self) -> list[Fact]:
        whole = self._files.parts()
        parts = whole.values()
        chosen = [number for part in parts for number in part.chosen if part.files is self._files.files]
        masks = [] if self._masks is None else self._masks.facts([path for part in parts for path in part.ids])
        points = []
        if self.settings.points:
            points = facts_of_points(self.settings, [row for split in whole for row in self._cells(split)])
        return [*self._files.facts(), *facts_of(self._files.files, chosen, self.settings), *masks, *points]

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return holds(path, EXTENSIONS)
