"""Mask images: a picture of the same name as an image, whose values are the classes of its pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from maskedmodel import Fact, Settings
from maskedmodel.errors import DataError
from maskedmodel.sources import EncodedFiles, files_at
from maskedmodel_image.decode import EXTENSIONS, Form, ImageFileSettings, fitted, open_image, reading, upright_size

if TYPE_CHECKING:
    from PIL.Image import Image

NONE = -1  # the class number of a pixel without a label
_MODES = ("1", "L", "P", "I;16", "I;16B", "I")


class MaskSettings(Settings):
    """How mask images are found and read."""

    masks: str | None = Field(
        None,
        description="Folder, zip or tar of mask images, for task segment: each has the path of its image below `path`, "
        "with any suffix. Images without one have no labels. null: none.",
    )
    mask_classes: tuple[str, ...] = Field((), description="Names of the classes of mask pixels, needed with `masks`.")
    mask_values: tuple[int, ...] | None = Field(
        None,
        description="Value of each class in a mask, in their order, such as [0, 255]. null: 0, 1, 2 and so on. Of a "
        "palette image it is the index.",
    )
    mask_ignore: int | None = Field(
        None, description="Value of mask pixels that have no label, such as 255. null: any unknown value is refused."
    )

    @model_validator(mode="after")
    def _masks_make_sense(self) -> MaskSettings:
        values = self.mask_values
        if self.masks is not None and (not self.mask_classes or len(set(self.mask_classes)) < len(self.mask_classes)):
            raise ValueError("masks needs mask_classes, the names of their classes, each once, as [background, cell]")
        if values is not None and (len(values) != len(self.mask_classes) or len(set(values)) < len(values)):
            raise ValueError(f"mask_values are one for each of mask_classes, all different, got {list(values)}")
        if self.mask_ignore is not None and self.mask_ignore in self.values:
            raise ValueError(f"mask_ignore: {self.mask_ignore} is the value of a class")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each class."""
        return tuple(range(len(self.mask_classes))) if self.mask_values is None else self.mask_values


class MaskFiles:
    """The masks of images, by the images' ids. Raises DataError where there are none, or two for one image."""

    def __init__(self, settings: MaskSettings) -> None:
        assert settings.masks is not None
        self.settings = settings
        self.files = files_at(settings.masks, "folder of masks", EXTENSIONS, "masks")
        self.place: dict[str, int] = {}
        for number, path in enumerate(self.files.paths):
            other = self.place.setdefault(_stem(path), number)
            if other != number:
                raise DataError(
                    "Two masks have one name, so it isn't clear whose an image's is.",
                    where=settings.masks,
                    got=f"{self.files.paths[other]}, {path}",
                    fix="Remove one.",
                )

    def number(self, path: str) -> int | None:
        """Which file is the mask of the image at this path, None where it has none."""
        return self.place.get(_stem(path))

    def facts(self, ids: Sequence[str]) -> list[Fact]:
        """How many of the images have a mask, and how many masks an image."""
        have = [path for path in ids if self.number(path) is not None]
        found = [Fact("masks", f"{len(have):,} of {len(ids):,} images have one", notice=len(have) < len(ids))]
        spare = len(self.files.paths) - len({_stem(path) for path in have})
        if spare:
            found.append(Fact("masks", f"{spare:,} of {len(self.files.paths):,} belong to no image: ignored", True))
        return found


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


class Masks:
    """The mask of image number `index`, (H, W) int64 as large as the image is stored; None where it has none."""

    def __init__(
        self,
        masks: MaskFiles,
        images: EncodedFiles,
        chosen: Sequence[int],
        ids: Sequence[str],
        form: Form,
        image_settings: ImageFileSettings,
    ) -> None:
        self.masks, self.images, self.chosen, self.ids = masks, images, chosen, ids
        self.form, self.image_settings = form, image_settings

    def __call__(self, index: int) -> Tensor | None:
        number = self.masks.number(self.ids[index])
        if number is None:
            return None
        name, most = self.masks.files.name(number), self.image_settings.max_pixels
        with self.images.open(self.chosen[index]) as stream, reading(self.images.name(self.chosen[index])):
            size = upright_size(*open_image(stream, self.images.name(self.chosen[index]), most))
        with self.masks.files.open(number) as stream, reading(name):
            mask = _upright(open_image(stream, name, most)[0], name)
            if (mask.height, mask.width) != size:
                raise DataError(
                    "A mask is of another size than its image.",
                    where=name,
                    expected=f"{size[0]} x {size[1]} pixels, as {self.ids[index]}",
                    got=f"{mask.height} x {mask.width}",
                )
            values = np.array(fitted(mask, *self.form.shape[1:], smooth=False)).astype(np.int64)
        return self._classes(values, name)

    def _classes(self, values: np.ndarray[tuple[int, ...], np.dtype[np.int64]], name: str) -> Tensor:
        """Class numbers of values. Raises DataError on one that is no class."""
        settings = self.masks.settings
        classes = np.full_like(values, NONE)
        known = np.zeros(values.shape, dtype=bool) if settings.mask_ignore is None else values == settings.mask_ignore
        for place, value in enumerate(settings.values):
            own = values == value
            classes[own] = place
            known |= own
        if not known.all():
            strange = sorted(set(values[~known].tolist()))
            raise DataError(
                "A mask holds values that are no class.",
                where=name,
                expected=", ".join(f"{v} for {c}" for v, c in zip(settings.values, settings.mask_classes, strict=True)),
                got=", ".join(map(str, strange[:10])) + (", ..." if len(strange) > 10 else ""),
                fix="Name every class in data.mask_classes, give their values with data.mask_values, such as [0,255], "
                "or the one value of pixels without a label with data.mask_ignore=255.",
            )
        return torch.from_numpy(classes)


def _upright(mask: Image, name: str) -> Image:
    """A mask as its file says it stands, one whole number per pixel. Raises DataError where it has colours."""
    from PIL import ImageOps

    if mask.mode not in _MODES:
        raise DataError(
            "A mask has one whole number per pixel.",
            where=name,
            expected=f"a grey or palette image (mode {', '.join(_MODES)})",
            got=f"mode {mask.mode}",
            fix="Save class numbers as a grey image.",
        )
    turned = ImageOps.exif_transpose(mask)
    return turned.convert("L").point(lambda value: value // 255) if turned.mode == "1" else turned
