"""The `parquet` source: tables with a column of encoded images, as the Hugging Face hub lays them out."""

from __future__ import annotations

import glob
import io
import os
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, PositiveInt

from maskedmodel import DataSource, Sample
from maskedmodel.errors import DataError
from maskedmodel.sources import VALIDATION_NAMES, SampleDataset, Split, existing_path, split_by_share
from maskedmodel_image.dataset import form_of, open_images, read_file
from maskedmodel_image.decode import ImageFileSettings
from maskedmodel_image.table import Table, load_pyarrow


class ParquetSettings(ImageFileSettings):
    """Settings of the `parquet` source."""

    name: Literal["parquet"] = "parquet"
    path: str = Field(
        description="A .parquet file, a folder of them, or a glob. Files named train-... and test-... (or val, valid, "
        "validation, dev) are the splits."
    )
    val_path: str | None = Field(None, description="File, folder or glob of the validation table.")
    val_share: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="Share of the rows for validation, by a hash of file name and row, where nothing else says.",
    )
    image: str | None = Field(None, description="Column of encoded images. null = the first of a fitting type.")
    label: str | None = Field(
        None, description="Column of integer labels. null = the first marked as such, else the only integer one."
    )
    size: PositiveInt | tuple[PositiveInt, PositiveInt] | None = Field(
        None,
        description="Stored size in pixels, one number or [height, width]: the short side is resized to fit, the "
        "centre kept. null = as they are, which must then be one size.",
    )


def _find(setting: str, what: str) -> tuple[list[Path], Path]:
    """The parquet files that a setting means, and the folder their ids start from."""
    path = Path(setting).expanduser()
    if glob.has_magic(setting) and not path.exists():
        files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))
    else:
        path = existing_path(setting, what)
        files = sorted(found for found in path.rglob("*.parquet") if found.is_file()) if path.is_dir() else [path]
    if not files:
        expected = "files that end in .parquet"
        raise DataError("There are no parquet files.", where=path, expected=expected, got="none", fix="Check the path.")
    return files, path if path.is_dir() else Path(os.path.commonpath([file.parent for file in files]))


def _of_split(files: list[Path], base: Path, names: tuple[str, ...]) -> list[Path]:
    """The files in whose name, or folder, the first of `names` that occurs stands as a word."""
    for name in names:
        word = re.compile(rf"(?:^|[/._-]){name}(?:[/._-]|$)")
        found = [file for file in files if word.search(file.relative_to(base).as_posix())]
        if found:
            return found
    return []


class Parquet(DataSource[ParquetSettings]):
    """Encoded images and integer labels out of parquet files.

    A sample's id is "file:row", after "val:" under val_path.
    """

    @classmethod
    def example_settings(cls, folder: Path) -> ParquetSettings:
        """Random pictures of two classes in a table, written into `folder`: what the conformance kit reads."""
        from PIL import Image

        images = []
        for pixels in np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8):
            stream = io.BytesIO()
            Image.fromarray(pixels).save(stream, "PNG")
            images.append({"bytes": stream.getvalue(), "path": None})
        arrow = load_pyarrow()
        table = arrow.table({"image": images, "label": [row % 2 for row in range(20)]})
        arrow.parquet.write_table(table, folder / "pictures.parquet", row_group_size=8)
        return ParquetSettings(path=str(folder / "pictures.parquet"))

    def open(self, split: Split) -> SampleDataset:
        table, chosen = self._parts[split]
        ids = [table.ids[row] for row in chosen]
        labels = None if table.labels is None else [table.labels[row] for row in chosen]
        form = form_of(self._parts["train"][0], self.settings)
        return open_images(table, chosen, ids, labels, form, self.settings, split)

    def class_names(self) -> list[str] | None:
        table = self._parts["train"][0]
        if table.class_names is None and table.labels is not None:
            return [str(label) for label in range(max(table.labels) + 1)]
        return table.class_names

    def read(self, path: Path) -> Sample:
        return read_file(path, self.settings)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return any(path.rglob("*.parquet")) if path.is_dir() else path.suffix.lower() == ".parquet"

    @cached_property
    def _parts(self) -> dict[Split, tuple[Table, list[int]]]:
        """For each split the table, and the rows of it that belong to the split."""
        settings = self.settings
        files, base = _find(settings.path, "path")
        train_files = _of_split(files, base, ("train",))
        val_files: list[Path] = []
        val_base = base
        if settings.val_path is not None:
            val_files, val_base = _find(settings.val_path, "val_path")
            val_files = _of_split(val_files, val_base, VALIDATION_NAMES) or val_files
            train_files = train_files or files
        elif train_files:
            val_files = _of_split(files, base, VALIDATION_NAMES)
        if train_files and val_files:
            train = Table(train_files, base, settings.image, settings.label, "")
            prefix = "" if settings.val_path is None else "val:"
            val = Table(val_files, val_base, settings.image, settings.label, prefix)
            return {"train": (train, list(range(len(train)))), "val": (val, list(range(len(val))))}
        table = Table(files, base, settings.image, settings.label, "")

        def share(split: Split) -> tuple[Table, list[int]]:
            return table, split_by_share(table.ids, settings.val_share, split, settings.path)

        return {"train": share("train"), "val": share("val")}
