"""The `image_folder` source: a folder of image files, or a zip of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from maskedmodel import DataError, DataSource, Sample, SampleDataset, Split
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import EXTENSIONS, ImageFileSettings
from maskedmodel_image.files import FolderFiles, ZipFiles, image_files
from maskedmodel_image.splits import VALIDATION_NAMES, split_by_share


class ImageFolderSettings(ImageFileSettings):
    """Settings of the `image_folder` source."""

    name: Literal["image_folder"] = "image_folder"
    path: str = Field(
        description="Folder of images, or a zip of one. Sub-folders are classes unless images also lie beside them. "
        "Sub-folders train and val (or valid, validation, dev, test) are the splits."
    )
    val_path: str | None = Field(None, description="Folder or zip of the validation images.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the images for validation, chosen by a hash of their names, where neither val_path nor "
        "sub-folders say.",
    )


@dataclass(frozen=True)
class _Part:
    """One split: where its images are, their numbers there, and the folder inside that the classes lie in."""

    files: FolderFiles | ZipFiles
    chosen: list[int]
    base: str
    prefix: str = ""  # of ids, to tell the images of val_path from others of the same name

    @property
    def ids(self) -> list[str]:
        return [self.prefix + self.files.paths[index] for index in self.chosen]

    @property
    def inside(self) -> list[str]:
        """The paths from `base` on."""
        return [self.files.paths[index][len(self.base) :] for index in self.chosen]


class ImageFolder(DataSource[ImageFolderSettings]):
    """Images in a folder or a zip, labelled by sub-folder where there are sub-folders.

    Hidden files are passed over. A sample's id is its path relative to the folder, after "val:" under val_path. A
    single sub-folder that holds everything, as zips often have, stands for the folder itself.
    """

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

    def open(self, split: Split) -> SampleDataset:
        part = self._parts[split]
        form = form_of(self._parts["train"].files, self.settings)
        return open_images(part.files, part.chosen, part.ids, self._labels(part), form, self.settings, split)

    def class_names(self) -> list[str] | None:
        return self._classes

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_dir():
            return any(file.suffix.lower() in EXTENSIONS for file in path.rglob("*"))
        return path.suffix.lower() in (".zip", *EXTENSIONS)

    @cached_property
    def _parts(self) -> dict[Split, _Part]:
        settings = self.settings
        files = image_files(settings.path, "path")
        everything, base = list(range(len(files))), _common_folder(files.paths)
        tops = _folders(files.paths, base)
        val_name = next((name for name in VALIDATION_NAMES if name in tops), None)
        named = "train" in tops and val_name is not None

        def below(folder: str) -> _Part:
            return _Part(files, [i for i in everything if files.paths[i].startswith(folder)], folder)

        train = below(f"{base}train/") if named else _Part(files, everything, base)
        if settings.val_path is not None:
            val = image_files(settings.val_path, "val_path")
            # Validation may hold one class only, whose folder is then common to all but isn't to be skipped.
            val_base = _common_folder(val.paths, _folders(train.inside, ""))
            return {"train": train, "val": _Part(val, list(range(len(val))), val_base, "val:")}
        if named:
            return {"train": train, "val": below(f"{base}{val_name}/")}

        def share(split: Split) -> _Part:
            return _Part(files, split_by_share(files.paths, settings.val_share, split, settings.path), base)

        return {"train": share("train"), "val": share("val")}

    @cached_property
    def _classes(self) -> list[str] | None:
        train = self._parts["train"]
        paths = train.inside
        if train.files is self._parts["val"].files and train.base == self._parts["val"].base:
            paths = paths + self._parts["val"].inside
        names = _folders(paths, "")
        return sorted(names) if len(names) > 1 and all("/" in path for path in paths) else None

    def _labels(self, part: _Part) -> list[int] | None:
        if self._classes is None:
            return None
        number = {name: label for label, name in enumerate(self._classes)}
        for path, inside in zip(part.ids, part.inside, strict=True):
            if inside.split("/")[0] not in number:
                raise DataError(
                    "A validation image belongs to no class of the training images.",
                    where=path,
                    expected=f"a sub-folder with the name of a class: {', '.join(self._classes[:20])}",
                    fix="Give both splits the same sub-folders.",
                )
        return [number[inside.split("/")[0]] for inside in part.inside]


def _folders(paths: Sequence[str], base: str) -> set[str]:
    """Names of the folders directly below `base`."""
    return {path[len(base) :].split("/")[0] for path in paths if "/" in path[len(base) :]}


def _common_folder(paths: Sequence[str], stop: set[str] | frozenset[str] = frozenset()) -> str:
    """The innermost folder that holds all of the sorted `paths`: "" or "a/b/". Doesn't enter a folder in `stop`."""
    base = ""
    for first, last in zip(paths[0].split("/")[:-1], paths[-1].split("/")[:-1], strict=False):
        if first != last or first in stop:
            break
        base += f"{first}/"
    return base
